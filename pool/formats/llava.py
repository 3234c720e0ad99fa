"""LLaVA's JSON or JSONL, and ShareGPT's: a file of records, pictures beside it."""

from collections.abc import Iterator
from typing import Any

from ..json_stream import iter_records
from .chat import to_llava
from .source import Format, Source


def _read(source: Source) -> Iterator[Any]:
    return iter_records(source.path)


def _read_chat(source: Source) -> Iterator[Any]:
    return map(to_llava, iter_records(source.path))


def _files(source: Source) -> list[str]:
    return [source.path]


def _root(source: Source) -> None:
    return None


LLAVA = Format(
    "llava",
    "a JSON array or JSONL of {image, conversations: [{from: human or gpt, value}]} (mix665k, Instruct-150K, LCS-558K)",
    _read,
    _files,
    _root,
)
SHAREGPT = Format(
    "sharegpt",
    "a JSON array or JSONL of {messages or conversations: [{role, content}], images} (ShareGPT, LLaMA-Factory)",
    _read_chat,
    _files,
    _root,
)
