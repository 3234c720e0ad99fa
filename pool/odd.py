"""What of a sound record is read otherwise than it stands, or passed over: counted by ingest and told by the doctor."""

import re
from collections.abc import Mapping
from typing import Any

from .refusals import IMAGE

ODD = {
    "mark_moved": "the picture's <image> stood behind or between words; it was put in front, as LLaVA's trainer does",
    "mark_added": "no question has an <image>; a mark for each picture was put in front",
    "marks_dropped": "one picture has several <image>; all but one were taken out, as LLaVA's trainer does",
    "other_mark": "a question spells a picture's mark as another program does (<IMG_CONTEXT>, <image_1>, …); it stays text",
    "reasoning_left_out": "an answer has its reasoning in a key of its own; it is not trained on",
    "tools_left_out": "the record lists tools; the prompt does not tell of them",
    "picture_size_left_out": "a picture asks for a size of its own; it gets the model's",
}
REASONING = ("reasoning_content", "reasoning", "thinking")
TOOLS = ("tools", "functions")
SIZES = ("min_pixels", "max_pixels", "resized_height", "resized_width")
# what a reader of turns leaves on them, so that it can be told
OF_TURNS = (*REASONING, *TOOLS, *SIZES)
_OTHER_MARK = re.compile(
    r"<(?:IMG_CONTEXT|start_of_image|IMAGE|ImageHere|image_placeholder|image[ _]?\d+|\|image(?:_pad|_\d+)?\|)>"
)
Odd = tuple[tuple[str, str], ...]


def odd_marks(turns: list[dict[str, str]], images: int) -> Odd:
    """Return (what, which) of the marks of `images` pictures, before they are put where they belong."""
    if not images:
        return ()
    asked = [t["value"] for t in turns[::2]]
    marks = sum(text.count(IMAGE) for text in asked)
    odd = []
    if not marks:
        odd.append(("mark_added", ""))
    elif images == 1:
        holder = next(text for text in asked if IMAGE in text)
        if not holder.lstrip().startswith(IMAGE):
            odd.append(("mark_moved", f"{holder!r:.80}"))
        if marks > 1:
            odd.append(("marks_dropped", f"{marks} marks"))
    other = next((passed_over for text in asked if (passed_over := _OTHER_MARK.search(text))), None)
    return (*odd, ("other_mark", other[0])) if other else tuple(odd)


def odd_parts(raw: Mapping[str, Any], pictures: tuple[str, ...]) -> Odd:
    """Return (what, which) of the parts of a raw record that are passed over; `pictures`: its keys that name pictures."""
    passed_over = {key: "" for key in TOOLS if raw.get(key) and raw[key] != "[]"}
    for key in pictures:
        value = raw.get(key)
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, dict):
                passed_over |= {k: "" for k in SIZES if one.get(k)}
    turns = raw.get("conversations")
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and len(turn) > 2:
            answers = turn.get("from") == "gpt"
            passed_over |= {k: "" for k in OF_TURNS if turn.get(k) and (answers or k not in REASONING)}
    kinds = (("reasoning_left_out", REASONING), ("tools_left_out", TOOLS), ("picture_size_left_out", SIZES))
    named = ((kind, ", ".join(k for k in keys if k in passed_over)) for kind, keys in kinds)
    return tuple((kind, names) for kind, names in named if names) if passed_over else ()
