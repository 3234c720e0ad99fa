"""A pool's picture → the data URI that an endpoint is sent."""

import base64
import io

from ...pool.images import load_image, read_image
from ...pool.refusals import ImageError
from ...pool.shown import Pictures

# a file of another format is decoded and sent as PNG
_SENT = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
# bytes of a picture that is sent; OpenAI's own limit is some 20 MB, a third of which base64 takes
MAX_SENT = 14 << 20


def data_uri(root: str | None, image: str, seen: int | None = None, pictures: Pictures = "white") -> str:
    """Return a picture as a data URI: a JPEG, PNG or WebP file's own bytes, any other as a PNG of what it shows.

    Either way it is decoded here first, whole and within the caps of `load_image`; `seen`: as there. `pictures` says how a
    file that is decoded becomes RGB; of one that is sent as it is, the endpoint decides.

    Raises:
        ImageError: as `load_image`; image_too_large: more than `MAX_SENT` bytes, as PNG too.
    """
    decoded = load_image(root, image, seen=seen, pictures=pictures)
    kind = _SENT.get(decoded.format or "")
    data = read_image(root, image) if kind else b""
    if not kind or len(data) > MAX_SENT:
        sink = io.BytesIO()
        decoded.save(sink, "PNG")
        kind, data = "image/png", sink.getvalue()
    if len(data) > MAX_SENT:
        raise ImageError("image_too_large", f"{image!r} has {len(data):,} bytes as it is sent, over {MAX_SENT:,}.")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
