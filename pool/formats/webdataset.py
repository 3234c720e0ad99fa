"""WebDataset: tar shards whose members `NAME.json`, `NAME.txt`, `NAME.jpg` stand together, one sample a name.

The record is the `.json`, or a caption in `.txt`; pictures are referred to as `SHARD.tar/MEMBER` and not read here.
"""

from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import PurePosixPath
from tarfile import TarInfo
from typing import Any

from ...store.errors import InputError
from ...store.files import open_fs
from ..archives.members import File
from ..archives.tar import BrokenTarError, is_plain, members
from ..checks import IMAGE, RefusedError
from ..json_source import Once
from ..limits import RECORD_BYTES
from ..media import FILM, PICTURE
from .chat import to_llava
from .layouts import SOURCES
from .source import Format, Source, below, folder_of, shards, shards_root
from .splits import data_set_of, of_split

# files of one sample: more are held by nobody
_FILES = 1000


def read(source: Source) -> Iterator[Any]:
    """Yield the samples of all shards, one in memory at a time.

    Raises:
        InputError: a shard is no tar, is cut off, or lies outside the image root that was given.
    """
    for path in files(source):
        fs, inner = open_fs(path)
        file, name = File(fs, inner), below(path, source.image_root or folder_of(source.path))
        try:
            for key, group in groupby(members(file), key=_key):
                infos = list(islice(group, _FILES + 1))
                if len(infos) > _FILES:
                    yield RefusedError("record_too_large", f"sample {key!r:.200} has more than {_FILES} files")
                elif key and any(is_plain(i) for i in infos):
                    yield _named(_record(file, name, key, infos), data_set_of(path))
        except (BrokenTarError, OSError) as error:
            raise InputError(f"{path!r} cannot be read to its end: {error}.") from error


def _named(record: Any, data_set: str) -> Any:
    # by its pictures' paths every shard would be a source of its own
    if not isinstance(record, dict) or record.get("source"):
        return record
    return record | {"source": next((record[n] for n in SOURCES if isinstance(record.get(n), str)), data_set)}


def _key(info: TarInfo) -> str:
    """Return a member's sample: its folder and its name up to the first dot; "" is none (hidden files, `__…`)."""
    place = PurePosixPath(info.name.removeprefix("./"))
    stem = place.name.split(".")[0]
    return "" if not stem or stem.startswith("__") or info.isdir() else str(place.parent / stem)


def _record(file: File, shard: str, key: str, infos: list[TarInfo]) -> Any:
    by_kind = {i.name.rpartition(".")[2].lower(): i for i in infos if is_plain(i)}
    shown = [i.name.removeprefix("./") for i in infos if is_plain(i) and PICTURE.search(i.name)]
    try:
        _refuse_film(infos, key)
        raw = _json(file, by_kind["json"], key) if "json" in by_kind else {}
        captioned = raw.get("conversations") is None and raw.get("messages") is None
        if captioned:
            raw = raw | {"conversations": _caption(file, by_kind.get("txt"), raw, bool(shown), key)}
    except RefusedError as error:
        return error
    unread = [i.name for i in infos if is_plain(i) and i.name.rpartition(".")[2].lower() not in ("json", "txt")]
    if not shown and unread and (captioned or _asks_for_picture(raw)):
        return RefusedError("bad_image", f"sample {key!r} speaks of a picture; {unread[0]!r} is not read as one")
    if shown:
        raw = {k: v for k, v in raw.items() if k != "image"} | {"images": _order(raw, shown, shard)}
    return to_llava({"id": key} | raw)


def _refuse_film(infos: list[TarInfo], key: str) -> None:
    film = next((i.name for i in infos if is_plain(i) and FILM.search(i.name)), None)
    if film is not None:
        raise RefusedError("unsupported_media", f"sample {key!r} holds {film!r}; only pictures are read")


def _asks_for_picture(raw: dict[str, Any]) -> bool:
    turns = raw.get("conversations") or raw.get("messages")
    texts = [t.get("value", t.get("content")) for t in turns if isinstance(t, dict)] if isinstance(turns, list) else []
    return any(isinstance(t, str) and IMAGE in t for t in texts)


def _order(raw: dict[str, Any], shown: list[str], shard: str) -> list[str]:
    """Return the sample's pictures in the record's own order where it names them, else in the shard's."""
    named = raw.get("images") or raw.get("image")
    named = [named] if isinstance(named, str) else named
    by_name = {PurePosixPath(name).name: name for name in shown}
    if (
        isinstance(named, list)
        and named
        and all(isinstance(g, str) and PurePosixPath(g).name in by_name for g in named)
    ):
        shown = [by_name[PurePosixPath(g).name] for g in named]
    return [f"{shard}/{name}" for name in shown]


def _json(file: File, info: TarInfo, key: str) -> dict[str, Any]:
    text = _text(file, info, key)
    try:
        value = Once().decode(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError("not_an_object", f"sample {key!r}: its .json is not JSON ({error})") from error
    if isinstance(value, RefusedError):
        raise value
    if not isinstance(value, dict):
        raise RefusedError("not_an_object", f"sample {key!r}: its .json holds {type(value).__name__}")
    return value


def _caption(file: File, info: TarInfo | None, raw: dict[str, Any], shown: bool, key: str) -> list[dict[str, str]]:
    text = _text(file, info, key) if info is not None else raw.get("caption")
    if not isinstance(text, str):
        raise RefusedError("no_conversations", f"sample {key!r} has no turns in .json and no caption in .txt")
    return [{"from": "human", "value": IMAGE if shown else ""}, {"from": "gpt", "value": text.strip()}]


def _text(file: File, info: TarInfo, key: str) -> str:
    if info.size > RECORD_BYTES:
        raise RefusedError(
            "record_too_large", f"sample {key!r}: {info.name!r} has {info.size} bytes, over {RECORD_BYTES}"
        )
    try:
        return file.read_at(info.size, info.offset_data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError("bad_text", f"sample {key!r}: {info.name!r} is not UTF-8 ({error.reason})") from error


def files(source: Source) -> list[str]:
    """Return the shards, of one split."""
    return of_split(shards(source.path, ".tar"), source, folder_of(source.path))


WEBDATASET = Format(
    "webdataset",
    "a .tar file, a folder or a pattern of them, with members NAME.json or NAME.txt, and NAME.jpg",
    read,
    files,
    shards_root,
    frozenset({"split"}),
)
