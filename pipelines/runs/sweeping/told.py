"""Trackers that fail: what they keep is for people to look at, so it is told once, and the sweep goes on without them."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ....store.errors import one_line
from ...progress import console

Method = TypeVar("Method", bound=Callable[..., Any])


def told(method: Method) -> Method:
    """Have a callback's method do nothing any more once one of its methods has failed, which is told."""

    @wraps(method)
    def careful(self: Any, *arguments: Any, **named: Any) -> Any:
        if getattr(self, "has_failed", False):
            return None
        try:
            return method(self, *arguments, **named)
        except Exception as error:  # noqa: BLE001 – somebody's server or disk: trials go on, their results are on disk
            self.has_failed = True
            what = f"{self.called} gets no more of this sweep: {one_line(error).rstrip('.')}."
            console.print(f"{what} Trials go on; `result.json` of each has its numbers.", markup=False, soft_wrap=True)
            return None

    return careful  # type: ignore[return-value]
