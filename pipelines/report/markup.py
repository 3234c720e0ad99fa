"""The report's templates, and what they are given: plain data, every text of which is escaped where it is put in."""

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2.loaders import FileSystemLoader
from jinja2.runtime import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
# what no XML or HTML text may hold; a pool's text may
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Cell:
    """A cell that is more than its text: bold, a badge of a `verdict` (better, worse, no), a bar (`share` in %), or heat.

    Heat: a background of strength `share`, from -1 (less) to 1 (more); `note` is small text below.
    """

    text: str = ""
    kind: Literal["bold", "verdict", "bar", "heat"] = "bold"
    verdict: str = ""
    share: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts and cells, one list a row; the columns in `numeric` are right-aligned."""

    caption: str
    head: list[str]
    rows: list[list[Any]]
    numeric: set[int]


def render(template: str, /, **values: Any) -> Markup:
    """Fill `templates/TEMPLATE.html.j2`; a name that it asks for and is not given is an error."""
    return Markup(_environment().get_template(f"{template}.html.j2").render(**values))


def clean(value: Any) -> str:
    """Return a value as text, with "�" for what no text of a page may hold; finished markup as it is."""
    return value if isinstance(value, Markup) else _CONTROL.sub("�", str(value))


def as_json(value: Any) -> Markup:
    """Return a value as JSON that a `<script>` can hold, whatever its texts are; null for what is no finite number.

    All but ASCII is escaped too (`json` does that), so U+2028 and lone surrogates are no matter.
    """
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_json"] = as_json
    return environment
