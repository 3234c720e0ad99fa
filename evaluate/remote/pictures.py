"""A pool's picture → the data URI that an endpoint is sent: it sees what a model that is loaded here sees."""

import base64
import io

from PIL import Image

from ...pool.images import TRAITS_KEY, load_image, read_image
from ...pool.refusals import ImageError
from ...pool.shown import Pictures

# a file of another format is decoded and sent as PNG
_SENT = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
# what decoders do not agree on: whether EXIF turns a picture, what lies under transparent parts, how 16 bits become 8
_READ_OTHERWISE = {"rotated_picture", "transparent_picture", "deep_picture", "animated_picture"}
# bytes of a picture that is sent; OpenAI's own limit is some 20 MB, a third of which base64 takes
MAX_SENT = 14 << 20


def data_uri(root: str | None, image: str, seen: int | None = None, pictures: Pictures = "white") -> str:
    """Return a picture as a data URI: a JPEG, PNG or WebP file's own bytes, if every decoder shows the same of them.

    Any other file, and one that is turned by its EXIF, has transparent parts, 16 bits or several frames, goes as a PNG of
    what `load_image` shows of it by `pictures`. Either way it is decoded here first, whole and within the caps of
    `load_image`; `seen`: as there.

    Raises:
        ImageError: as `load_image`; image_too_large: more than `MAX_SENT` bytes, as PNG too.
    """
    looked_at = load_image(root, image, seen=seen, glance=True)
    kind = _SENT.get(looked_at.format or "")
    own = kind and not _READ_OTHERWISE.intersection(looked_at.info[TRAITS_KEY])
    data = read_image(root, image) if own else b""
    if not data or len(data) > MAX_SENT:
        kind, data = "image/png", _as_png(load_image(root, image, seen=seen, pictures=pictures))
    if len(data) > MAX_SENT:
        raise ImageError("image_too_large", f"{image!r} has {len(data):,} bytes as it is sent, over {MAX_SENT:,}.")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _as_png(picture: Image.Image) -> bytes:
    # its pixels alone: a profile or a transparent colour that came along would be applied to them
    plain, sink = Image.new("RGB", picture.size), io.BytesIO()
    plain.paste(picture)
    plain.save(sink, "PNG")
    return sink.getvalue()
