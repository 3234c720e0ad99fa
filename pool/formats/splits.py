"""What files' names say: the data set they are shards of, and their split."""

import re
from pathlib import PurePosixPath

from ...store.errors import InputError
from .source import Source

# train-00000-of-00004, part_3, shard.12; of more than that a number is part of a name
_NUMBER = re.compile(r"[-_.]?\d+-of-\d+$|[-_.]?\d+$")
_OF = re.compile(r".+-\d+-of-\d+")
_SPLITS = {"train", "training", "test", "testing", "testmini", "validation", "valid", "val", "dev", "eval"}
# names that say nothing about what is inside
_PLAIN = _SPLITS | {
    "data",
    "default",
    "all",
    "part",
    "shard",
    "chunk",
    "parquet",
    "jsonl",
    "json",
    "file",
    "shards",
    "",
}


def stem_of(file: str) -> str:
    """Return a file's name without endings and shard number."""
    name = re.sub(r"(\.(parquet|tar|jsonl?|gz|bz2|zst))+$", "", PurePosixPath(file).name, flags=re.IGNORECASE)
    return _NUMBER.sub("", name)


def data_set_of(file: str) -> str:
    """Name the data set that a shard belongs to: its stem, or the first folder above whose name says something."""
    names = [stem_of(file), *reversed(PurePosixPath(file.partition("://")[2] or file).parts[:-1])]
    return next((n for n in names if n.lower() not in _PLAIN and n != "/"), stem_of(file) or "data")


def split_of(file: str, folder: str) -> str:
    """Return a shard's split: the word in front of `-00000-of-00004`, a known word as name, or as folder's name."""
    stem = stem_of(file)
    name = PurePosixPath(file).name.split(".")[0]
    if _OF.fullmatch(name) or stem.lower() in _SPLITS:
        return stem
    if (first := re.split(r"[-_.]", stem)[0]).lower() in _SPLITS:
        return first
    inside = PurePosixPath(file[len(folder) :].lstrip("/")).parts[:-1]
    return next((p for p in reversed(inside) if p.lower() in _SPLITS), "")


def of_split(paths: list[str], source: Source, folder: str) -> list[str]:
    """Return the files of the split that was chosen; all, where there is one.

    Raises:
        InputError: there are several splits and none was chosen, or not that one.
    """
    names = {f: split_of(f, folder) for f in paths}
    splits = sorted(set(names.values()))
    if source.split is None:
        if len(splits) > 1:
            told = [s or "(no name)" for s in splits]
            raise InputError(f"{source.path!r} has shards of several splits, {told}: choose one (--split).")
        return paths
    if source.split not in splits:
        raise InputError(f"{source.path!r} has no shard of split {source.split!r}; its splits are {splits}.")
    return [f for f in paths if names[f] == source.split]
