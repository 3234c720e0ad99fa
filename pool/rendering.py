"""A checkpoint's own chat template, rendered in Jinja's sandbox and in bounded time: it may be anything.

Filters and globals are transformers' own. Beyond them: every loop and call looks at a clock; what makes a large value of a
small one is refused; `strftime_now` is not there, so that a template takes the date that it has for such a case, or is
refused: what a row is must not depend on the day. `{% generation %}` blocks, which say what is trained, are marked in the
text itself where that is asked for.
"""

import threading
import time
from collections.abc import Sized
from functools import lru_cache
from typing import Any

import jinja2.nodes as nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from ..store.errors import InputError

# seconds that one rendering may take; it takes less than a thousandth
SECONDS = 10.0
# elements or characters of one value: a text of a record may have many
LARGEST = 1 << 24
_FACTOR = 1 << 13
# a beginning and an end of a `{% generation %}` block; private-use characters, as `own_template.py` has more of
BEGIN, END = "\uf8f2", "\uf8f3"
# filters and methods that make any size of a number, or go by chance
_REFUSED = ("center", "indent", "wordwrap", "batch", "slice", "random", "format")
_GROWING = {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map"}
_OF_LOOPS = {"index", "index0", "first", "last", "length"}
_clock = threading.local()


class TemplateFaultError(InputError):
    """A chat template that ends in an error, of its own (`raise_exception`) or another."""


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`: what stands between is an answer."""

    tags = {"generation"}

    def parse(self, parser: Any) -> list[nodes.Node]:
        """Put two variables around the block, which are empty unless it is asked for."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (nodes.Output([nodes.Name(name, "load")], lineno=line) for name in ("answer_begin", "answer_end"))
        return [begin, nodes.Scope(body, lineno=line), end]


class _Bounded(ImmutableSandboxedEnvironment):
    """The sandbox that looks at the clock."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "bounded", [], [], None, None, lineno=loop.lineno)
        for kept in list(tree.find_all(nodes.Assign)):
            kept.node = nodes.Filter(kept.node, "bounded", [], [], None, None, lineno=kept.lineno)
        tree.set_environment(self)
        return tree

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what the sandbox allows."""
        return bounded(super().call(context, bounded(obj), *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply what stays small: a text or a list grows by it; powers and `%` of texts are not there."""
        if operator == "%" and isinstance(left, (int, float)):
            return left % right
        sizes = [len(n) if isinstance(n, (str, list, tuple)) else n for n in (left, right)]
        if operator == "*" and all(isinstance(n, (int, float)) and abs(n) <= _FACTOR for n in sizes):
            return left * right
        raise SecurityError(
            f"`{operator}` of {type(left).__name__} and {type(right).__name__}, which may have any size"
        )

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute that the sandbox allows; of `loop`, the most frequent one, without its ceremony."""
        if type(obj) is LoopContext and attribute in _OF_LOOPS:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Say whether a template may look at an attribute."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _GROWING)


def bounded(value: Any) -> Any:
    """Return a value as it is.

    Raises:
        SecurityError: the rendering's time is over, or the value is too large.
    """
    if time.monotonic() > getattr(_clock, "end", float("inf")):
        raise SecurityError(f"it takes more than {SECONDS:g} seconds")
    if isinstance(value, Sized) and not isinstance(value, type) and len(value) > LARGEST:
        raise SecurityError(f"a value in it has {len(value):,} elements or characters")
    return value


def _refuse(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> str:
        raise SecurityError(f"it uses the filter `{name}`")

    return refuse


@lru_cache(maxsize=1)
def _environment() -> _Bounded:
    from transformers.utils import chat_template_utils

    theirs = chat_template_utils._compile_jinja_template("").environment
    mine = _Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    mine.filters = theirs.filters | {n: _refuse(n) for n in _REFUSED} | {"bounded": bounded}
    mine.globals = {n: v for n, v in theirs.globals.items() if n not in ("strftime_now", "lipsum")}
    return mine


class Renderer:
    """One chat template."""

    def __init__(self, template: str, values: dict[str, Any]) -> None:
        """Compile it; `values`: what it is given beside messages (the names of special tokens).

        Raises:
            TemplateFaultError: it is no template, or uses what is not there.
        """
        self.values = values
        try:
            self._compiled = _environment().from_string(template)
            tree = _environment().parse(template)
        except (TemplateError, RecursionError) as error:
            raise TemplateFaultError(f"the chat template cannot be read: {error}.") from error
        named = {n.name for n in tree.find_all(nodes.Name)}
        self.marks_answers = "answer_begin" in named
        self.dated = "strftime_now" in named

    def render(self, messages: list[dict[str, Any]], open_answer: bool = False, marked: bool = False) -> str:
        """Return the text of messages; `open_answer`: with the beginning of the next answer; `marked`: with `BEGIN`, `END`.

        Raises:
            TemplateFaultError: the template refuses these messages, or they are more than it can do.
        """
        begin, end = (BEGIN, END) if marked else ("", "")
        _clock.end = time.monotonic() + SECONDS
        try:
            return self._compiled.render(
                self.values,
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=open_answer,
                answer_begin=begin,
                answer_end=end,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise TemplateFaultError(f"the chat template refuses these turns: {self._why(error)}.") from error
        except (RecursionError, MemoryError) as error:
            raise TemplateFaultError(f"the chat template does not end: {type(error).__name__}.") from error
        finally:
            _clock.end = float("inf")

    def _why(self, error: Exception) -> str:
        if self.dated and "strftime_now" in str(error):
            return "it writes the day's date, so that a row would be another one tomorrow"
        said = str(error).rstrip(".") or type(error).__name__
        return said if len(said) < 200 else said[:200] + "…"
