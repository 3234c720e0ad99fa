"""Every spelling of a picture in a record → `image` or `images`; what is no picture (video, audio) is refused by name.

A record whose picture is not found under a known name would train as text about nothing, and nobody would see it.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from .refusals import IMAGE, RefusedError

# names of a record's pictures that are read, in the order in which they are looked for
PICTURE_KEYS = (
    *("image", "images", "image_path", "image_paths", "image_file", "image_files", "img", "imgs", "img_path"),
    *("image_url", "image_urls", "picture", "pictures", "photo", "photos"),
)
# their singular says what the others say; a text beside pictures of another key may be where they were fetched from
_SOURCES = ("image_url", "image_urls")
OTHER_MEDIA = (
    *("video", "videos", "video_path", "video_paths", "video_url", "video_file", "clip", "clips", "frames"),
    *("audio", "audios", "audio_path", "audio_paths", "audio_url", "audio_file", "sound", "speech", "point_cloud"),
)
_INSIDE = ("bytes", "base64", "image_base64", "b64", "b64_json", "data", "pixel_values")
_NAMES = ("path", "url", "image", "image_url", "image_path", "file", "file_name", "filename")
PICTURE = re.compile(r"\.(jpe?g|jpe|jfif|png|gif|webp|bmp|tiff?|avif|heic)$", re.IGNORECASE)
FILM = re.compile(r"\.(mp4|m4v|mov|avi|mkv|webm|mpe?g|wav|mp3|flac|ogg|m4a|aac)$", re.IGNORECASE)
_TAG = re.compile(r"<img>\s*([^<>\n]+?)\s*</img>")
# Qwen's picture in a text, whatever its count of pads
_QWEN = re.compile(r"<\|vision_start\|>(?:<\|image_pad\|>)+<\|vision_end\|>")
# a line of its own: a word in a text about markup is text
_FILM_MARK = re.compile(
    r"(?:^|\n)\s*<(video|audio|speech|sound)>|<(video|audio|speech|sound)>\s*(?:$|\n)|<\|(video_pad|audio_pad)\|>"
)


def read_media(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the record with its pictures under `images` (or `image`, as it was), and their marks spelled `<image>`.

    Raises:
        RefusedError: unsupported_media (a video, a sound), bad_image (pictures inside the record, two keys that name
            different ones, a key that looks like a picture's and is none that is read).
    """
    for key in OTHER_MEDIA:
        if raw.get(key):
            raise RefusedError("unsupported_media", f"`{key}` is {raw[key]!r:.80}; only pictures are read")
    keyed = {key: raw[key] for key in PICTURE_KEYS if raw.get(key) is not None and raw[key] != []}
    turns = raw.get("conversations")
    tagged = _marked(turns) if isinstance(turns, list) else None
    if not keyed and tagged is None:
        _refuse_unread(raw)
        return raw
    if keyed.keys() <= {"image"} and tagged is None and isinstance(raw["image"], str) and raw["image"][:5] != "data:":
        return raw  # LLaVA's own form, nearly every record
    images = _named(keyed)
    rest = {k: v for k, v in raw.items() if k not in keyed or (k in _SOURCES and len(keyed) > 1)}
    if tagged is not None:
        tagged_images, turns = tagged
        if tagged_images and images and tagged_images != images:
            raise RefusedError("bad_image", f"turns name {tagged_images!r:.80}, `{next(iter(keyed))}` {images!r:.80}")
        images, rest = tagged_images or images, rest | {"conversations": turns}
    return rest | ({"image": images[0]} if len(images) == 1 else {"images": images})


# what a turn may say of itself: it is not to be trained on
_UNTRAINED = ("weight", "loss", "loss_weight", "train", "training", "trainable")
_MASKED = ("mask", "masked")
_CALLS = ("tool_calls", "function_call")
_ASKS = ("human", "user", "system")


def refuse_unheard(turn: dict[str, Any], where: str) -> None:
    """Refuse a turn with more to it than its text: a medium of its own, a call, or a mark that it is not to be trained on.

    Raises:
        RefusedError: names the key.
    """
    for key, value in turn.items():
        if key in PICTURE_KEYS and value:
            raise RefusedError("bad_image", f"{where} names a picture ({key!r}: {value!r:.60}): name it in the record.")
        if key in OTHER_MEDIA and value:
            raise RefusedError("unsupported_media", f"{where} has {key!r}: {value!r:.60}; only pictures are read")
        if key in _CALLS and value:
            raise RefusedError("bad_turn", f"{where} has {key!r}: {value!r:.60}; calls are not trained on")
        asks = turn.get("from", turn.get("role")) in _ASKS  # and is not trained on anyway
        masked = (key in _UNTRAINED and not value and value is not None) or (key in _MASKED and value in (True, "true"))
        if masked and not asks:
            raise RefusedError(
                "bad_turn", f"{where} is not to be trained on ({key!r}: {value!r}); all answers are: take the turn out."
            )


def picture_name(value: Any, where: str) -> str:
    """Return the path of one picture: a text, or an object that names one (`path`, `url`, `image_url: {url}`, …).

    Raises:
        RefusedError: it holds the picture itself, or names none.
    """
    if isinstance(value, str) and value:
        if value.startswith("data:") or (len(value) > 1000 and "/" not in value[:64]):
            raise RefusedError("bad_image", f"{where} holds the picture itself ({value[:40]}…): {_WRITE}")
        return value
    if isinstance(value, dict):
        names = [value[k] for k in _NAMES if value.get(k)]
        if names:
            return picture_name(names[0], where)
        inside = next((k for k in _INSIDE if value.get(k)), None) or ("source" if value.get("source") else None)
        if inside:
            raise RefusedError("bad_image", f"{where}.{inside} holds the picture itself: {_WRITE}")
    raise RefusedError("bad_image", f"{where} is {value!r:.80}; a path, a list of them, or null is known")


_WRITE = "write it to a file and name that, or put it into Parquet."


def _named(keyed: dict[str, Any]) -> list[str]:
    """Return the pictures that a record's keys name; several keys must name the same."""
    images: list[str] = []
    first = ""
    for key, value in keyed.items():
        if images and key in _SOURCES:
            continue
        some = value if isinstance(value, list) else [value]
        names = [picture_name(v, f"`{key}`") for v in some]
        if images and not _same(names, images):
            raise RefusedError("bad_image", f"`{first}` names {images!r:.80}, `{key}` {names!r:.80}")
        images, first = images or names, first or key
    return images


def _same(names: list[str], others: list[str]) -> bool:
    """Say whether two lists name the same files, one of them perhaps with a longer path."""
    parts = ((PurePosixPath(a).parts, PurePosixPath(b).parts) for a, b in zip(names, others, strict=False))
    return len(names) == len(others) and all(a[-len(b) :] == b or b[-len(a) :] == a for a, b in parts)


def _marked(turns: list[Any]) -> tuple[list[str], list[Any]] | None:
    """Return the pictures that turns name in tags, and the turns with `<image>` in their place; None without tags."""
    images: list[str] = []
    changed = False
    done = []
    for turn in turns:
        key = "value" if isinstance(turn, dict) and "value" in turn else "content"
        text = turn.get(key) if isinstance(turn, dict) else None
        if not isinstance(text, str) or "<" not in text or turn.get("from", turn.get("role")) in ("gpt", "assistant"):
            done.append(turn)
            continue
        film = _FILM_MARK.search(text)
        if film:
            raise RefusedError("unsupported_media", f"a turn holds {film[0].strip()}; only pictures are read")
        named = [n for n in _TAG.findall(text) if PICTURE.search(n) or n.startswith(("http", "data:", "/"))]
        plain = _QWEN.sub(IMAGE, text)
        for name in named:
            images.append(picture_name(name, "<img>"))
            plain = re.sub(rf"<img>\s*{re.escape(name)}\s*</img>", lambda _: IMAGE, plain, count=1)
        changed = changed or plain != text
        done.append(turn | {key: plain})
    return (images, done) if changed else None


def _refuse_unread(raw: dict[str, Any]) -> None:
    """Refuse a record without a picture some other key of which names a picture's or film's file."""
    for key, value in raw.items():
        if key in ("id", "conversations", "source", "task", "system"):
            continue
        for text in _texts(value):
            if FILM.search(text):
                raise RefusedError("unsupported_media", f"`{key}` names {text!r:.80}; only pictures are read")
            if PICTURE.search(text) or text.startswith("data:image"):
                raise RefusedError(
                    "bad_image", f"`{key}` names {text!r:.80}, which is not read: call it `image` if it is the picture"
                )


def _texts(value: Any) -> Iterable[str]:
    """Yield one-line texts of a value: itself, a list's, or an object's."""
    if isinstance(value, str):
        if len(value) < 1000 and "\n" not in value and " " not in value.strip():
            yield value.split("?", 1)[0]
        elif value.startswith("data:image"):
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from (t for t in _texts(inner) if not isinstance(inner, (dict, list)))
    elif isinstance(value, list) and value and isinstance(value[0], (str, dict)):
        yield from _texts(value[0])
