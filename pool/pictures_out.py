"""Pictures that lie inside Parquet, tar or zip, as files beside an export: what its JSON names must open elsewhere."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from PIL import Image, UnidentifiedImageError

from ..store.errors import InputError
from ..store.files import exists, join, write_bytes
from .archives.folder import looks_like_archive
from .checks import ImageError
from .images import known_formats, read_image
from .records import Record

_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}


def is_inside(root: str | None, image: str) -> bool:
    """Say whether a picture is a member of an archive, by its path's names."""
    folders = [*PurePosixPath(root or "").parts, *PurePosixPath(image).parts[:-1]]
    return any(map(looks_like_archive, folders))


def some_inside(root: str | None, records: Iterable[Record]) -> bool:
    """Say whether any picture of these records is no plain file."""
    return any(is_inside(root, image) for record in records for image in record.images)


class PictureFiles:
    """Writes pictures under `NAME_images` beside the export `path`, each once, named by its content."""

    def __init__(self, path: str, root: str | None) -> None:
        self.folder, _, name = path.rpartition("/")
        self.name, self.root = f"{PurePosixPath(name).stem}_images", root

    def placed(self, record: Record) -> Record:
        """Return a record whose pictures are files, relative to the export's folder.

        Raises:
            InputError: a picture cannot be read.
        """
        return replace(record, images=tuple(self._put(record, image) for image in record.images))

    def _put(self, record: Record, image: str) -> str:
        try:
            data = read_image(self.root, image)
            with Image.open(io.BytesIO(data), formats=known_formats()) as picture:
                kind = picture.format or ""
        except (ImageError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InputError(f"record {record.sample_id}: {image!r}: {error} Mend it, or export other rows.") from error
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        place = f"{self.name}/{digest[:2]}/{digest}.{_ENDINGS.get(kind, kind.lower())}"
        target = join(self.folder, place) if self.folder else place
        if not exists(target):
            write_bytes(target, data)
        return place
