"""Names that become part of a path: one component of a safe alphabet, so that nothing is written or read elsewhere."""

import os
import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from .errors import DamagedError, InputError
from .files import exists, join

# bytes: what temporary names and endings add stays under the 255 of file systems
MOST = 128
# what lies beside the features of a store: lists of refused and of cut rows, tries, means of targets
TAKEN = ("refused", "cut", "tries")
AIMS = "target-means"
_NAME = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9_.-]{{0,{MOST - 1}}}")
_RULE = f"take letters, digits, _, - and single dots (not first), {MOST} at most"


def is_name(name: object) -> bool:
    """Say whether a name is one part of a path, and no way out of its folder."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and ".." not in name


def path_part(name: object, where: str) -> str:
    """Return a name that is to become part of a path; `where`: the field that holds it.

    Raises:
        InputError: it could leave its folder, or file systems would not take it.
    """
    if not isinstance(name, str) or not is_name(name):
        raise InputError(f"{where}: {name!r:.200} is no name; {_RULE}.")
    return name


def place_in(folder: str, path: object, manifest: str) -> str:
    """Return where something lies that a manifest names by its path: in `folder`, also when that was moved since.

    Raises:
        DamagedError: it would lie elsewhere.
    """
    components = PurePosixPath(path).parts if isinstance(path, str) else ()
    if components and ".." not in components and is_name(components[-1]):
        place = join(folder, components[-1])
        if str(PurePosixPath(str(path))) == str(PurePosixPath(place)) or exists(place):
            return place
    raise DamagedError(
        f"{manifest!r} names {path!r:.200}, which is no file of {os.fspath(folder)!r}: something else was written in its "
        "place. Delete it, and run what made it again."
    )


def _checked(name: str) -> str:
    if not is_name(name):  # pydantic says which field and what was given
        raise ValueError(f"it becomes part of a path: {_RULE}")
    return name


def is_taken(name: str) -> bool:
    """Say whether a feature store keeps something else than a feature under a name."""
    return name.lower() in TAKEN or name.lower().startswith(AIMS)


def _no_folder_of_a_store(name: str) -> str:
    if is_taken(name):
        raise ValueError(f"a feature store keeps something else under {name!r}; take another name")
    return name


Name = Annotated[str, AfterValidator(_checked)]
FeatureName = Annotated[Name, AfterValidator(_no_folder_of_a_store)]
