"""Records of `messages` or `conversations` with other roles (ShareGPT, LLaMA-Factory, OpenAI) → LLaVA's keys."""

from typing import Any

from ..media import OTHER_MEDIA, PICTURE_KEYS, picture_name, refuse_unheard
from ..odd import OF_TURNS, SIZES
from ..refusals import IMAGE, RefusedError

_TEXTS, _PICTURES = (
    ("text", "input_text", "output_text"),
    ("image", "image_url", "input_image", "img", "picture", "image_file"),
)

# others (function_call, observation, tool) stay, and the check refuses them
ROLES = {"user": "human", "assistant": "gpt", "model": "gpt", "bot": "gpt"}


def to_llava(raw: Any) -> Any:
    """Return a record in LLaVA's keys; what is damaged stays as it is, for `check_record` to say why.

    A leading system turn stays one. Content in parts becomes one text, `<image>` and a newline where a part is a picture;
    pictures named there are the record's. A part that is no text and no picture is a `RefusedError` in the record's place.
    """
    if not isinstance(raw, dict):
        return raw
    try:
        return _in_our_keys(raw)
    except RecursionError:
        return RefusedError("not_an_object", "this record cannot be read: it is nested too deep")


def _in_our_keys(raw: dict[str, Any]) -> Any:
    key = "conversations" if raw.get("conversations") is not None else "messages"
    turns = raw.get(key)
    rest = {k: v for k, v in raw.items() if k != key}
    if not isinstance(turns, list):
        return rest | {"conversations": turns}
    named: list[str] = []
    try:
        for number, turn in enumerate(turns):
            if isinstance(turn, dict):
                refuse_unheard(turn, f"turn {number}")
        said = [_turn(t, named) for t in turns]
    except RefusedError as error:
        return error
    if named:
        listed = rest.get("images") or rest.get("image")
        names = listed if isinstance(listed, list) else [listed]
        if listed and names != named:
            return RefusedError("bad_image", f"turns name {named!r:.80}, the record {names!r:.80}")
        rest["images"] = named
    return rest | {"conversations": said}


def is_chat(raw: Any) -> bool:
    """Say whether a record has these keys or roles rather than LLaVA's own."""
    if not isinstance(raw, dict):
        return False
    turns = raw.get("conversations")
    if turns is None:
        return isinstance(raw.get("messages"), list)
    said = [t for t in turns if isinstance(t, dict)] if isinstance(turns, list) else []
    roles = [t.get("from", t.get("role")) for t in said]
    ours = all(r in ("human", "gpt") for r in roles) and not any("role" in t for t in said)
    return bool(roles) and not ours


def _turn(turn: Any, named: list[str]) -> Any:
    if not isinstance(turn, dict):
        return turn
    role = turn["from"] if turn.get("from") is not None else turn.get("role")
    text = turn["value"] if turn.get("value") is not None else turn.get("content")
    passed_over = {k: turn[k] for k in OF_TURNS if turn.get(k)}
    if isinstance(text, list):
        passed_over |= {k: part[k] for part in text if isinstance(part, dict) for k in SIZES if part.get(k)}
        text = _join(text, named)
    return {"from": ROLES.get(role, role) if isinstance(role, str) else role, "value": text} | passed_over


def _join(parts: list[Any], named: list[str]) -> str | None:
    """Return parts of a turn as one text; pictures that they name go to `named`.

    Raises:
        RefusedError: a part is a video, a sound, a call, or of an unknown type.
    """
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            return None  # no text: the turn is refused
        kind = part.get("type")
        if kind in _TEXTS or (kind is None and isinstance(part.get("text"), str)):
            text = part.get("text", part.get("content"))
            if not isinstance(text, str):
                return None
            texts.append(text)
        elif kind in _PICTURES or (kind is None and any(part.get(k) for k in PICTURE_KEYS)):
            texts.append(f"{IMAGE}\n")
            named += _pictures(part)
        elif kind in OTHER_MEDIA or any(part.get(k) for k in OTHER_MEDIA):
            raise RefusedError("unsupported_media", f"a turn holds a part {part!r:.80}; only pictures are read")
        else:
            raise RefusedError("bad_turn", f"a turn holds a part of unknown type {kind!r:.40}: {part!r:.80}")
    return "".join(texts)


def _pictures(part: dict[str, Any]) -> list[str]:
    """Return the picture that a part names; none for a bare mark, whose picture the record names itself."""
    said = {k: v for k, v in part.items() if k not in ("type", "detail", "index", *SIZES) and v}
    said.pop("text", None)
    return [picture_name(said, "a part of a turn")] if said else []
