"""Looking at pictures: threads open each picture once, whatever the number of rows that show it."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .images import ImageError, load_image, resolve
from .marks import difference_hash

# PIL's names of formats and the endings that they go by
_ENDINGS = {"JPEG": {"jpg", "jpeg", "jpe", "jfif"}, "MPO": {"jpg", "jpeg", "mpo"}, "PNG": {"png", "apng"}}
_ENDINGS |= {"GIF": {"gif"}, "WEBP": {"webp"}, "BMP": {"bmp", "dib"}, "TIFF": {"tif", "tiff"}}
# failures held; beyond them a row that shows the same picture looks again
_FAILURES = 10_000


@dataclass(frozen=True)
class Look:
    """What was seen: the difference hash when the picture was decoded, and its format if the name says another."""

    image_hash: int | None = None
    misnamed: str | None = None


class Looks:
    """Sees to pictures in threads, as `check` says: "decode", "exists" or "none". Use as a context."""

    def __init__(self, root: str | None, check: str, max_pixels: int, threads: int) -> None:
        self.root, self.check, self.max_pixels = root, check, max_pixels
        # image hash by the path's hash: mix665k shows many pictures again and again
        self._seen: dict[int, int | None] = {}
        self._failed: dict[str, tuple[str, str]] = {}
        self._under_way: dict[str, Future[Look]] = {}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pictures")

    def begin(self, images: Iterable[str | None]) -> None:
        """Have threads look at those that are new."""
        if self.check == "none":
            return
        for image in images:
            if image is None or image in self._under_way or image in self._failed or hash(image) in self._seen:
                continue
            self._under_way[image] = self._threads.submit(self._look, image)

    def end(self, image: str) -> Look:
        """Return what was seen; a misnamed picture is named at its first row alone.

        Raises:
            ImageError: the picture cannot be used.
        """
        if self.check == "none":
            return Look()
        if hash(image) in self._seen:
            return Look(self._seen[hash(image)])
        if image in self._failed:
            raise ImageError(*self._failed[image])
        try:
            look = (self._under_way.pop(image, None) or self._threads.submit(self._look, image)).result()
        except ImageError as error:
            if len(self._failed) < _FAILURES:
                self._failed[image] = (error.reason, str(error))
            raise
        self._seen[hash(image)] = look.image_hash
        return look

    def _look(self, image: str) -> Look:
        if self.check == "exists":
            resolve(self.root, image)
            return Look()
        picture = load_image(self.root, image, self.max_pixels)
        name = PurePosixPath(image).suffix.lower().removeprefix(".")
        known = _ENDINGS.get(picture.format or "")
        return Look(difference_hash(picture), picture.format if known and name not in known else None)

    def __enter__(self) -> "Looks":
        return self

    def __exit__(self, *_: Any) -> None:
        self._threads.shutdown(cancel_futures=True)
