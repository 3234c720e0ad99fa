"""Checks of pictures: each is opened once, whatever the number of rows that show it."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from .dedup import difference_hash
from .images import TRAITS_KEY, ImageError, load_image, resolve

# PIL's names of formats and the endings that they go by
_ENDINGS = {"JPEG": {"jpg", "jpeg", "jpe", "jfif"}, "MPO": {"jpg", "jpeg", "mpo"}, "PNG": {"png", "apng"}}
_ENDINGS |= {"AVIF": {"avif"}, "PPM": {"ppm", "pgm", "pbm", "pnm"}, "DIB": {"dib", "bmp"}}
_ENDINGS |= {"GIF": {"gif"}, "WEBP": {"webp"}, "BMP": {"bmp", "dib"}, "TIFF": {"tif", "tiff"}}
# a name without one of these says nothing of the format: row numbers, hashes, "photo.final"
_NAMED = {ending for endings in _ENDINGS.values() for ending in endings}
# failures held; beyond them a row that shows the same picture looks again
_FAILURES = 10_000
# pictures per task: some 50 ms of decoding
_TASK = 24


@dataclass(frozen=True)
class LookConfig:
    """Where pictures lie and how they are looked at; `threads` of one process do it."""

    root: str | None
    check: str
    max_pixels: int
    threads: int


@dataclass(frozen=True)
class Look:
    """What was seen: the difference hash when the picture was decoded, (what is odd about it, how), or the reason and
    detail of a refusal."""

    image_hash: int | None = None
    odd: tuple[tuple[str, str], ...] = ()
    reason: str | None = None
    detail: str = ""


Ask = Callable[[list[str]], Future[list[Look]]]


def look_at(config: LookConfig, images: Sequence[str]) -> list[Look]:
    """Look at each picture as `check` says: "decode" it, or see that it "exists"."""
    # PIL decodes with the interpreter's lock held: threads help where files come from afar
    if config.threads == 1 or len(images) == 1 or "://" not in (config.root or ""):
        return [_look(config, image) for image in images]
    with ThreadPoolExecutor(config.threads, thread_name_prefix="pictures") as threads:
        return list(threads.map(lambda image: _look(config, image), images))


def _look(config: LookConfig, image: str) -> Look:
    try:
        if config.check == "exists":
            resolve(config.root, image)
            return Look()
        picture = load_image(config.root, image, config.max_pixels, glance=True)
    except ImageError as error:
        return Look(reason=error.reason, detail=str(error))
    name = PurePosixPath(image).suffix.lower().removeprefix(".")
    known = _ENDINGS.get(picture.format or "")
    odd = [(trait, "") for trait in picture.info[TRAITS_KEY]]
    if known and name in _NAMED and name not in known:
        odd.append(("misnamed_image", f"is {picture.format}"))
    return Look(difference_hash(picture), tuple(odd))


class Looks:
    """Remembers what was seen, and has `ask` (images → a future of looks) see to the rest; None: no looking."""

    def __init__(self, ask: Ask | None) -> None:
        self.ask = ask
        # image hash by the path's hash: mix665k shows many pictures again and again
        self._seen: dict[int, int | None] = {}
        self._failed: dict[str, Look] = {}
        self._under_way: dict[str, tuple[Future[list[Look]], int]] = {}

    def begin(self, images: Iterable[str]) -> None:
        """Have those looked at that are new."""
        if self.ask is None:
            return
        new = [i for i in dict.fromkeys(images) if not self._known(i)]
        for start in range(0, len(new), _TASK):
            some = new[start : start + _TASK]
            future = self.ask(some)
            self._under_way |= {image: (future, n) for n, image in enumerate(some)}

    def end(self, image: str) -> Look:
        """Return what was seen; what is odd about a picture is told at its first row alone."""
        if self.ask is None:
            return Look()
        if hash(image) in self._seen:
            return Look(self._seen[hash(image)])
        if image in self._failed:
            return self._failed[image]
        future, number = self._under_way.pop(image, None) or (self.ask([image]), 0)
        look = future.result()[number]
        if look.reason is None:
            self._seen[hash(image)] = look.image_hash
        elif len(self._failed) < _FAILURES:
            self._failed[image] = look
        return look

    def _known(self, image: str) -> bool:
        return hash(image) in self._seen or image in self._under_way or image in self._failed
