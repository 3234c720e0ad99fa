"""An output folder holds one judgement: the same again goes on, another is refused."""

from typing import Any

from ...store.errors import KeyMismatchError
from ...store.facts import read_fields
from ...store.files import exists


def refuse_other(path: str, key: dict[str, Any]) -> None:
    """Refuse to go on where a report is of another judgement.

    Raises:
        KeyMismatchError: lists what differs.
    """
    if not exists(path):
        return
    before = read_fields(path, "report of a judgement", "Delete it and run again.", key=dict[str, Any])["key"]
    if differ := [n for n in sorted(before.keys() | key.keys()) if before.get(n) != key.get(n)]:
        raise KeyMismatchError(
            f"{path}: this was judged otherwise ({', '.join(differ)} differ). Use another output folder."
        )
