"""What a picture's file makes a decoder hold beside the pixels that its header names."""

from typing import Any

from PIL import Image

# of PIL's pixels, the widest: RGB has four bytes too, deep ones are one 32-bit number
PIXEL_BYTES = 4
# a tile of so many is no harm, whatever the cap on pixels
TILE_BYTES = 16 << 20
_BITS, _SAMPLES, _TILE_WIDTH, _TILE_LENGTH = 258, 277, 322, 323


def tile_bytes(picture: Image.Image) -> int:
    """Return the bytes of one tile of an opened TIFF, which is decoded whole however small the picture is; 0 without tiles.

    A 16×16 picture in one tile of 30,000×30,000 would take 900 MB.
    """
    tags: Any = getattr(picture, "tag_v2", None)
    if tags is None or _TILE_WIDTH not in tags:
        return 0
    width, length = (_most(tags.get(name, 0)) for name in (_TILE_WIDTH, _TILE_LENGTH))
    samples = max(1, _most(tags.get(_SAMPLES, 1)))
    return width * length * samples * max(1, (_most(tags.get(_BITS, 8)) + 7) // 8)


def _most(value: Any) -> int:
    return int(max(value) if isinstance(value, tuple) else value)
