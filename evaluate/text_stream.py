"""Tokens → text, piece by piece as they come: the pieces together are the reply's text, wherever its bytes are characters.

A character of several tokens waits for its last one, a stop text and what may become one are held back, and outer space is
left out, as in `Reply.text`.
"""

from collections.abc import Callable, Sequence


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first of the stop texts begins; None where there is none."""
    places = [i for i in map(text.find, stops) if i >= 0]
    return min(places, default=None)


class TextStream:
    """The text of one reply. `decode`: a generator's `text`."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, stop
        self._tokens: list[int] = []
        # tokens from `_begin` on are read together, those before `_read` have been
        self._begin = self._read = 0
        self._held, self._said, self._over = "", False, False

    def push(self, token: int) -> str:
        """Take a token; return what can be shown now, often nothing."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._begin : self._read])
        now = self._decode(self._tokens[self._begin :])
        if now.endswith("\N{REPLACEMENT CHARACTER}") or len(now) <= len(before):
            return ""  # half a character
        self._begin, self._read = self._read, len(self._tokens)
        return self._show(now[len(before) :])

    def close(self) -> str:
        """Return what was held back for more that did not come."""
        rest = self._decode(self._tokens[self._begin :])[len(self._decode(self._tokens[self._begin : self._read])) :]
        self._begin = self._read = len(self._tokens)
        shown = self._show(rest)
        last, self._held = self._held.rstrip(), ""
        return shown + (last if self._said else last.lstrip())

    def _show(self, piece: str) -> str:
        if self._over:
            return ""
        text = self._held + piece
        stop = first_stop(text, self._stop)
        # what may yet be a stop text's beginning, and space that may be the last, waits
        kept = max((_overlap(text, s) for s in self._stop), default=0)
        shown = text[: len(text) - kept if stop is None else stop].rstrip()
        self._over, self._held = stop is not None, text[len(shown) :] if stop is None else ""
        first, self._said = not self._said, self._said or bool(shown)
        return shown.lstrip() if first else shown


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text are a beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
