"""Markup that cannot be injected into: `tag` escapes every text and attribute that is not markup already."""

import html
import re
from typing import Any

VOID = {"img", "meta"}
# what no XML or HTML text may hold; a pool's text may
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Html(str):
    """Finished markup. Only this module, and constants of this room, make it."""

    __slots__ = ()


def esc(value: Any) -> Html:
    """Return a value as markup: `Html` as it is, anything else escaped."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(_CONTROL.sub("�", str(value)), quote=True))


def join(parts: Any) -> Html:
    """Put pieces one behind the other, escaping those that are no markup."""
    return Html("".join(esc(p) for p in parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Return an element; `class_` is `class`, `text_anchor` is `text-anchor`; None leaves one out."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{esc(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(children)}</{name}>")


def table(caption: str, head: list[str], rows: list[list[Any]], numeric: set[int]) -> Html:
    """Return a table that scrolls sideways on a narrow screen; columns in `numeric` are right-aligned."""
    kinds = ["n" if i in numeric else None for i in range(len(head))]
    top = tag("tr", *(tag("th", h, scope="col", class_=k) for h, k in zip(head, kinds, strict=True)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", c, class_=k) for c, k in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    ]
    inside = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body))
    return tag("div", inside, class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(named: dict[str, str]) -> Html:
    """Return names with what they stand for, side by side."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in named.items()), class_="facts")


def figure(picture: Html, caption: str) -> Html:
    """Return a picture with its caption."""
    return tag("figure", tag("div", picture, class_="scroll"), tag("figcaption", caption))


def _number(value: Any) -> Any:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
