"""What the tree must look like: rooms, names, what pyproject.toml lists. `rules.py` holds what a file must keep to."""

import tomllib
from pathlib import Path

from house.rules import BESIDE, PACKAGE, ROOMS, ROOT_FILES, python_files


def unknown_rooms(root: Path) -> list[str]:
    """Top-level folders with code that the table does not know, files at the root that are not its two."""
    tops = {p.split("/")[0] if "/" in p else "" for p in python_files(root)} - {""}
    loose = {p for p in python_files(root) if "/" not in p} - ROOT_FILES.keys()
    return [f"{t}/ is not a room on the table" for t in sorted(tops - ROOMS.keys() - BESIDE)] + [
        f"{p} lies at the root; put it into a room" for p in sorted(loose)
    ]


def room_inits(root: Path) -> list[str]:
    """`__init__.py` in a room: `select/__init__.py` would shadow the standard library's `select`."""
    return [
        f"{p} must go: rooms are namespace packages"
        for p in python_files(root)
        if p.endswith("/__init__.py") and p.split("/")[0] not in BESIDE
    ]


def utils_anywhere(root: Path) -> list[str]:
    """Folders or files called utils (helpers, misc, common): nobody knows what belongs there."""
    names = {"utils", "util", "helpers", "misc", "common"}
    return [
        f"{p} says nothing about what it holds"
        for p in python_files(root)
        if names & set(p.removesuffix(".py").split("/"))
    ]


def package_list(root: Path) -> list[str]:
    """Folders that pyproject's list lacks (a wheel would miss them), and listed ones without a file."""
    listed = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {p.rsplit("/", 1)[0] for p in python_files(root) if "/" in p and p.split("/")[0] not in BESIDE}
    there = {PACKAGE} | {f"{PACKAGE}.{f.replace('/', '.')}" for f in folders}
    # git does not keep an empty folder: listed and empty would fail in the next clone
    gone = {n for n in listed if not _holds_files(root / "/".join(n.split(".")[1:]))}
    return [f"pyproject.toml does not list {n}" for n in sorted(there - listed)] + [
        f"pyproject.toml lists {n}, which holds nothing" for n in sorted(gone)
    ]


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(p.is_file() for p in folder.iterdir())


TREE_RULES = (unknown_rooms, room_inits, utils_anywhere, package_list)
