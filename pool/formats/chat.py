"""Records of `messages` or `conversations` with other roles (ShareGPT, LLaMA-Factory, OpenAI) → LLaVA's keys."""

from typing import Any

from ..checks import IMAGE

# others (function_call, observation, tool) stay, and the check refuses them
ROLES = {"user": "human", "assistant": "gpt"}


def to_llava(raw: Any) -> Any:
    """Return a record in LLaVA's keys; what is damaged stays as it is, for `check_record` to say why.

    A leading system turn goes to the key `system`. Content in parts becomes one text, `<image>` and a newline
    where a part is a picture; pictures named there are the record's when it names none itself.
    """
    if not isinstance(raw, dict):
        return raw
    key = "conversations" if raw.get("conversations") is not None else "messages"
    turns = raw.get(key)
    rest = {k: v for k, v in raw.items() if k != key}
    if not isinstance(turns, list):
        return rest | {"conversations": turns}
    named: list[str] = []
    found = [_turn(t, named) for t in turns]
    first = found[0] if found else None
    if isinstance(first, dict) and first["from"] == "system" and rest.get("system") in (None, "", first["value"]):
        rest["system"] = first["value"]
        found = found[1:]
    if named and not rest.get("images") and not rest.get("image"):
        rest["images"] = named
    return rest | {"conversations": found}


def is_chat(raw: Any) -> bool:
    """Say whether a record has these keys or roles rather than LLaVA's own."""
    if not isinstance(raw, dict):
        return False
    turns = raw.get("conversations")
    if turns is None:
        return isinstance(raw.get("messages"), list)
    roles = [t.get("from", t.get("role")) for t in turns if isinstance(t, dict)] if isinstance(turns, list) else []
    ours = all(r in ("human", "gpt") for r in roles) and not any("role" in t for t in turns if isinstance(t, dict))
    return bool(roles) and not ours


def _turn(turn: Any, named: list[str]) -> Any:
    if not isinstance(turn, dict):
        return turn
    role = turn["from"] if turn.get("from") is not None else turn.get("role")
    text = turn["value"] if turn.get("value") is not None else turn.get("content")
    if isinstance(text, list):
        text = _join(text, named)
    return {"from": ROLES.get(role, role) if isinstance(role, str) else role, "value": text}


def _join(parts: list[Any], named: list[str]) -> str | None:
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image":
            texts.append(f"{IMAGE}\n")
            named += [part["image"]] if isinstance(part.get("image"), str) else []
        else:
            return None  # no text: the turn is refused
    return "".join(texts)
