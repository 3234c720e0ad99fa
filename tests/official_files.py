"""Small files in the official layouts of benchmarks, with a picture for each question."""

import base64
import json
import zlib
from pathlib import Path

from judged_bench import write_bench
from PIL import Image


def picture(path, color=None):
    """Write a small picture; each name, with its folder's, is another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = zlib.crc32("/".join(path.parts[-2:]).encode())
    Image.new("RGB", (24, 16), color or tuple(number.to_bytes(4, "big")[1:])).save(path)


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


SHORT = "\nAnswer the question using a single word or phrase."


def gqa(root: Path) -> Path:
    """GQA: two questions on one picture."""
    kinds = ({"structural": "query"}, {"structural": "verify"})
    rows = {
        f"20{i}": {"imageId": "n1", "question": q, "answer": a, "types": kinds[i]}
        for i, (q, a) in enumerate((("What color is it?", "red"), ("Is it a dog?", "yes")))
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "testdev_balanced_questions.json").write_text(json.dumps(rows))
    picture(root / "images/n1.jpg")
    return root


def vqav2_test(root: Path) -> Path:
    """VQAv2: one question of test-dev, two of test2015."""
    rows = [{"question_id": n, "image": "COCO_test2015_1.jpg", "text": f"What?{SHORT}"} for n in (11, 12)]
    write_lines(root / "llava_vqav2_mscoco_test-dev2015.jsonl", rows[1:])
    write_lines(root / "llava_vqav2_mscoco_test2015.jsonl", rows)
    picture(root / "test2015/COCO_test2015_1.jpg")
    return root


def vqav2_val(root: Path) -> Path:
    """VQAv2: two validation questions, the annotations in another order."""
    root.mkdir(parents=True, exist_ok=True)
    asked = [{"question_id": n, "image_id": 7, "question": f"What is {n}?"} for n in (1, 2)]
    people = [
        {
            "question_id": n,
            "answer_type": "other",
            "answers": [{"answer": f"thing {n}", "answer_id": i} for i in range(10)],
        }
        for n in (2, 1)
    ]
    (root / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({"questions": asked}))
    (root / "v2_mscoco_val2014_annotations.json").write_text(json.dumps({"annotations": people}))
    picture(root / "val2014/COCO_val2014_000000000007.jpg")
    return root


def vizwiz(root: Path, hidden: bool) -> Path:
    """VizWiz: two pictures, with answers (val.json) or without (LLaVA's test file)."""
    names = ["VizWiz_0.jpg", "VizWiz_1.jpg"]
    if hidden:
        write_lines(
            root / "llava_test.jsonl",
            [{"question_id": i, "image": n, "text": f"What is this?{SHORT}"} for i, n in enumerate(names)],
        )
    else:
        root.mkdir(parents=True, exist_ok=True)
        answers = [{"answer": "unanswerable", "answer_confidence": "yes"}] * 10
        (root / "val.json").write_text(
            json.dumps([{"image": n, "question": "What?", "answers": answers} for n in names])
        )
    for name in names:
        picture(root / ("test" if hidden else "val") / name)
    return root


def mme(root: Path) -> Path:
    """MME: fourteen categories of one picture and two questions, in the three layouts that there are."""
    ten = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
    four = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
    for category in (*ten, *four):
        lines = [f"Is it {a}? Please answer yes or no.\t{a.capitalize()}" for a in ("yes", "no")]
        if category == "artwork":
            picture(root / category / "images/0.jpg")
            place = root / category / "questions_answers_YN/0.txt"
        elif category == "OCR":
            picture(root / category / "0.jpg")
            place, lines = root / "OCR.txt", [f"0.jpg\t{line}" for line in lines]
        else:
            picture(root / category / "0.png")
            place = root / category / "0.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("\n".join(lines) + "\n")
    return root


def seed(root: Path) -> Path:
    """SEED-Bench: two questions on a picture, one on a video."""
    rows = [
        {"question_id": f"{i}", "question_type_id": 1, "data_type": kind, "data_id": "p.jpg", "question": "Which?"}
        | {"answer": "B"}
        | {f"choice_{c}": f"the {c}" for c in "abcd"}
        for i, kind in enumerate(("image", "video", "image"))
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "SEED-Bench.json").write_text(json.dumps({"questions": rows, "question_type": {"Scene Understanding": 1}}))
    picture(root / "SEED-Bench-image/p.jpg")
    return root


def mmbench(root: Path, name: str = "mmbench_dev_20230712.tsv", circular: bool = True, hidden: bool = False) -> Path:
    """MMBench: question 7 of two options and question 8 of three, with their shifts as rows where `circular`."""
    cells = []
    for number, hint, options, right in ((7, "nan", ["a cat", "a dog"], 1), (8, "It is late.", ["1", "2", "3"], 0)):
        path = root / "made" / f"{number}.jpg"
        picture(path, (number, 0, 0))
        image = base64.b64encode(path.read_bytes()).decode()
        path.unlink()
        for k in range(len(options) if circular else 1):
            shifted = [*options[k:], *options[:k], "", ""][:4]
            row = {"index": number + k * 1_000_000, "question": f"Which is {number}?", "hint": hint}
            row |= dict(zip("ABCD", shifted)) | ({} if hidden else {"answer": "ABCD"[(right - k) % len(options)]})
            row |= {
                "category": f"c{number}",
                "l2-category": "logic",
                "split": "dev",
                "image": image if k == 0 else number,
            }
            cells.append(row)
    (root / "made").rmdir()
    write_table(root / name, cells)
    return root


def write_table(path, rows):
    """Write rows as tab-separated values under the names of the first."""
    lines = ["\t".join(map(str, values)) for values in ([*rows[0]], *(r.values() for r in rows))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def llava_bench(root: Path, questions: int = 6) -> Path:
    """LLaVA-Bench-in-the-Wild: its three files and `images`; question i is of picture i mod 3."""
    write_bench(root, questions).unlink()
    for i in range(3):
        picture(root / "images" / f"{i:03d}.jpg")
    return root
