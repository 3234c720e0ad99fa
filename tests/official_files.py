"""Small files in the official layouts of benchmarks, with a picture for each question."""

import json
from pathlib import Path

from PIL import Image


def picture(path, color=(255, 0, 0)):
    """Write a small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16), color).save(path)


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pope(root: Path, n: int = 4) -> Path:
    """POPE: three files of n questions, pictures in `val2014`."""
    for split in ("adversarial", "popular", "random"):
        rows = [
            {
                "question_id": i + 1,
                "image": f"COCO_val2014_{i}.jpg",
                "text": f"Is there a dog {i} in the image?",
                "label": "yes" if i % 2 else "no",
            }
            for i in range(n)
        ]
        write_lines(root / f"coco_pope_{split}.json", rows)
    for i in range(n):
        picture(root / "val2014" / f"COCO_val2014_{i}.jpg")
    return root


def scienceqa(root: Path) -> Path:
    """ScienceQA: three test problems, one with a picture."""
    problems = {}
    for pid, (image, hint) in {"1": ("image.png", ""), "2": (None, "It rained."), "3": (None, "")}.items():
        problems[pid] = {
            "question": f"Which is {pid}?",
            "choices": ["one", "two"],
            "answer": 1,
            "hint": hint,
            "image": image,
            "lecture": "",
            "solution": "",
            "subject": "natural science",
            "split": "test",
        }
    (root / "problems.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "problems.json").write_text(json.dumps(problems))
    (root / "pid_splits.json").write_text(json.dumps({"test": ["1", "2", "3"], "train": []}))
    picture(root / "images/test/1/image.png")
    return root


def textvqa(root: Path) -> Path:
    """TextVQA: two questions on one picture; one of the question file is not in the annotations."""
    short = "\nAnswer the question using a single word or phrase."
    asked = [("pic0", "What does it SAY?"), ("pic0", "which color?"), ("pic9", "what else?")]
    write_lines(
        root / "llava_textvqa_val_v051_ocr.jsonl",
        [
            {
                "question_id": p,
                "image": f"{p}.jpg",
                "text": f"{q}\nReference OCR token: STOP, now{short}",
                "category": "d",
            }
            for p, q in asked
        ],
    )
    data = [
        {"question_id": 7, "image_id": "pic0", "question": "which color?", "answers": ["red"] * 3 + ["blue"] * 7},
        {"question_id": 8, "image_id": "pic0", "question": "what does it say?", "answers": ["stop"] * 10},
    ]
    (root / "TextVQA_0.5.1_val.json").write_text(json.dumps({"dataset_type": "val", "data": data}))
    picture(root / "train_images/pic0.jpg")
    return root
