"""Captions and boxes of pictures in COCO's layout, and an endpoint that answers about them as it is asked."""

import json

from endpoint import Handler, completion
from PIL import Image

DETAIL = " ".join(["A red ball lies in the grass, and a dog runs towards it from the left."] * 4)
REASONING = (
    "Question:\nWhat will happen next?\n===\nAnswer:\nThe dog runs towards the ball, so it will probably pick it up, "
    "carry it back to its owner, and wait for another throw."
)
CONVERSATION = (
    "Question:\nWhat is in the grass?\n===\nAnswer:\nA red ball.\n===\n"
    "Question:\nWho runs?\n===\nAnswer:\nA dog runs.\n==="
)


def answer_of(body: dict) -> str:
    """Return an answer in the form that the system message asks for."""
    system = body["messages"][0]["content"]
    if "Ask one question" in system:
        return REASONING
    return CONVERSATION if "Write a conversation" in system else DETAIL


def answers(handler: Handler, body: dict) -> None:
    """Answer as asked."""
    handler.send(200, json.dumps(completion(answer_of(body))).encode())


def write_coco(folder, n: int, pictures: bool = False) -> tuple[str, str]:
    """Write captions and instances of n pictures; returns both paths. With `pictures`, those too, to FOLDER/images."""
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 200, "height": 100} for i in range(n)]
    captions = [
        {"id": 2 * i + k, "image_id": i, "caption": f"Picture {i}: a dog\nand a ball, seen {k}."}
        for i in range(n)
        for k in range(2)
    ]
    boxes = [{"image_id": i, "category_id": 18, "bbox": [20, 30, 100, 50], "iscrowd": 0} for i in range(n)]
    categories = [{"id": 18, "name": "dog"}, {"id": 37, "name": "sports ball"}]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    (folder / "instances.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": categories})
    )
    if pictures:
        (folder / "images").mkdir()
        for image in images:
            Image.new("RGB", (200, 100), (image["id"] % 256, 90, 90)).save(folder / "images" / image["file_name"])
    return str(folder / "captions.json"), str(folder / "instances.json")
