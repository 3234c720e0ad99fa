"""One LLaVA record → a normalised record, or a reason why not. The reasons are a small fixed vocabulary."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .media import PICTURE_KEYS, read_media, refuse_unheard
from .odd import Odd, odd_marks, odd_parts
from .paths import below_root
from .refusals import IMAGE, REASONS, ImageError, RefusedError

__all__ = ["IMAGE", "REASONS", "Checked", "ImageError", "RefusedError", "check_record", "infer_source", "source_of"]

_ROLES = ("human", "gpt")
# levels of lists and objects in each other; Python's own JSON ends somewhere under a thousand, by the stack it has left
DEEPEST = 100
_TOO_DEEP = f"this record cannot be read: it is nested too deep (more than {DEEPEST} levels)"
_KEYS = ("image", "images", "conversations", "system", "system_prompt")


@dataclass(frozen=True)
class Checked:
    """A normalised record: human first, roles alternate, one `<image>` per picture (a single one in front of its turn).

    `odd`: (what, which) of it that was read otherwise than it stands, or passed over (`odd.ODD`).
    """

    source: str
    task: str
    images: tuple[str, ...]
    conversations: list[dict[str, str]]
    extra: dict[str, Any]
    odd: Odd = ()

    @property
    def system(self) -> str:
        """The record's own system prompt, "" without one."""
        return str(self.extra.get("system", ""))


def check_record(raw: Any, root: str | None = None) -> Checked:
    """Normalise one record as LLaVA's trainer reads it (spec: LLaVA §1.1).

    A leading gpt turn is left out (`extra["answer_left_out"]` keeps it); every `<image>` of a human turn becomes one
    `<image>` line in front; a record with a picture but without `<image>` gets one in its first turn (LLaVA would drop the
    picture); a literal `<image>` without a picture, or in an answer, stays text. With several pictures (`image` or `images`
    is a list) each needs a mark of its own, which stays where it stands in the text; without any mark they come first, a
    line each. Other spellings of pictures are read first (`media.py`); an absolute image path under the image root `root`
    becomes a relative one. A system prompt of the record's own ends in `extra["system"]`; `extra` keeps every other key,
    `id`, `source` and `task` included.

    Raises:
        RefusedError: with the reason.
    """
    try:
        return _checked(raw, root)
    except RecursionError as error:
        raise RefusedError("not_an_object", _TOO_DEEP) from error


def _checked(raw: Any, root: str | None) -> Checked:
    if isinstance(raw, RefusedError):  # a format may know already
        raise raw
    if not isinstance(raw, dict):
        raise RefusedError("not_an_object", f"found {type(raw).__name__}")
    unread, raw = raw, read_media(raw)
    images = tuple(below_root(image, root) for image in _images(raw))
    system, turns = read_system(raw)
    left_out = _leading_answer(turns)
    turns = _turns(turns)
    odd = odd_marks(turns, len(images)) + odd_parts(unread, PICTURE_KEYS)
    if images:
        turns = _place_image(turns) if len(images) == 1 else _place_images(turns, len(images))
    extra = {k: v for k, v in raw.items() if k not in _KEYS} | ({"system": system} if system else {})
    if left_out is not None:
        extra["answer_left_out"] = left_out
    if is_deep(extra):  # it is carried as JSON, which not every reader's stack could take
        raise RefusedError("not_an_object", _TOO_DEEP)
    source = _label(raw, "source") or infer_source(images[0] if images else None)
    checked = Checked(source, _label(raw, "task") or source, images, turns, extra, odd)
    text = "".join([source, checked.task, system, *images, *[t["value"] for t in turns]])
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RefusedError("bad_text", str(error)) from error
    return checked


def is_deep(value: Any) -> bool:
    """Say whether a value is nested deeper than `DEEPEST`; level by level, so that no depth is too much."""
    level = [value]
    for _ in range(DEEPEST):
        inside = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for some in inside for v in some if isinstance(v, (dict, list))]
        if not level:
            return False
    return True


def read_system(raw: dict[str, Any]) -> tuple[str, Any]:
    """Return the record's own system prompt ("" without one), and its turns without it.

    It may be the key `system` or `system_prompt`, or the first turn's role; where several say something, they must say the
    same.

    Raises:
        RefusedError: they do not, or a prompt is no text.
    """
    turns, said = raw.get("conversations"), []
    for key in ("system", "system_prompt"):
        if raw.get(key) not in (None, ""):
            said.append((key, raw[key]))
    if isinstance(turns, list) and turns and isinstance(turns[0], dict) and turns[0].get("from") == "system":
        said.append(("the first turn", turns[0].get("value")))
        turns = turns[1:]
    for where, text in said:
        if not isinstance(text, str):
            raise RefusedError("bad_system", f"{where} is {text!r:.80}, no text")
        if text != said[0][1]:
            raise RefusedError("bad_system", f"{said[0][0]} says {said[0][1]!r:.60}, {where} {text!r:.60}")
    return (said[0][1] if said else ""), turns


def infer_source(image: str | None) -> str:
    """Name the data set of a record by its image path's first folder, as mix665k is laid out (coco, gqa,
    ocr_vqa, …).

    Text-only records are "text", pictures without a folder are "image".
    """
    if image is None:
        return "text"
    first, _, rest = image.partition("/")
    if first not in ("", ".") and rest.strip("/."):
        return first  # what the next line says, in a tenth of its time
    names = PurePosixPath(image).parts
    return names[0] if len(names) > 1 else "image"


def source_of(raw: Any) -> str:
    """Name the source of a record that may be damaged; "" when it cannot be told."""
    if not isinstance(raw, dict):
        return ""
    label, first = raw.get("source"), ""
    try:
        images = _images(raw)
        first = infer_source(images[0] if images else None)
    except (RefusedError, RecursionError):
        pass
    name = label if isinstance(label, str) and label else first
    return name.encode("utf-8", "backslashreplace").decode()


def _images(raw: dict[str, Any]) -> tuple[str, ...]:
    """Return the record's image paths, of `image` or `images`: a path, a list of paths, or nothing."""
    fields = [(k, raw[k]) for k in ("image", "images") if raw.get(k) is not None and raw[k] != []]
    if not fields:
        return ()
    if len(fields) > 1:
        raise RefusedError("bad_image", "both `image` and `images` are given")
    key, value = fields[0]
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(p, str) and p for p in paths):
        raise RefusedError("bad_image", f"`{key}` is {value!r:.80}; a relative path, a list of them, or null is known")
    return tuple(paths)


def _label(raw: dict[str, Any], key: str) -> str:
    value = raw.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise RefusedError("bad_label", f"`{key}` is {value!r:.80}")
    return str(value)


def _turns(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise RefusedError("no_conversations")
    if not _is_plain(value):
        value = _mended(value)
    if not any(t["value"].strip() for t in value[1::2]):
        raise RefusedError("empty_answer")
    return value


def _leading_answer(turns: Any) -> Any:
    """Return what an answer to nothing says; None without one."""
    first = turns[0] if isinstance(turns, list) and turns else None
    return first.get("value") if isinstance(first, dict) and first.get("from") == "gpt" else None


def _is_plain(turns: list[Any]) -> bool:
    """Say whether there is nothing to mend or to refuse; nearly every record is so, and this costs a sixth."""
    if len(turns) % 2 or set(map(type, turns)) != {dict} or set(map(len, turns)) != {2}:
        return False
    try:
        roles, texts = [t["from"] for t in turns], [t["value"] for t in turns]
    except KeyError:
        return False
    return roles == list(_ROLES) * (len(turns) // 2) and set(map(type, texts)) == {str}


def _mended(value: list[Any]) -> list[dict[str, str]]:
    for i, turn in enumerate(value):
        if not isinstance(turn, dict) or not all(isinstance(turn.get(k), str) for k in ("from", "value")):
            raise RefusedError("bad_turn", f"turn {i} is {turn!r:.80}")
        if turn["from"] not in _ROLES:
            raise RefusedError("bad_role", f"turn {i} is from {turn['from']!r:.80}")
        refuse_unheard(turn, f"turn {i}")
    turns = [{"from": t["from"], "value": t["value"]} for t in value]
    if turns[0]["from"] == "gpt":
        turns = turns[1:]
    roles = [t["from"] for t in turns]
    if len(turns) < 2 or len(turns) % 2 or roles != list(_ROLES) * (len(turns) // 2):
        raise RefusedError("not_alternating", f"roles are {', '.join(roles) or 'none'}"[:200])
    return turns


def _place_image(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    holders = [i for i, t in enumerate(turns) if t["from"] == "human" and IMAGE in t["value"]]
    if len(holders) > 1:
        raise RefusedError("too_many_images", f"turns {holders} carry <image>")
    holder = holders[0] if holders else 0
    rest = turns[holder]["value"].replace(IMAGE, "").strip()
    return [*turns[:holder], {"from": "human", "value": f"{IMAGE}\n{rest}".strip()}, *turns[holder + 1 :]]


def _place_images(turns: list[dict[str, str]], images: int) -> list[dict[str, str]]:
    marks = sum(t["value"].count(IMAGE) for t in turns[::2])
    if marks == images:
        return turns
    if marks:
        raise RefusedError("image_count", f"{images} pictures, but {marks} <image> marks in the human turns")
    first = (f"{IMAGE}\n" * images + turns[0]["value"].strip()).strip()
    return [{"from": "human", "value": first}, *turns[1:]]
