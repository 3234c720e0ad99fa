"""A request's picture URLs → RGB pictures. Nothing is fetched: bytes stand in the URL, or in a file below a root."""

import base64
import binascii
import re
from urllib.parse import unquote, urlsplit

from PIL import Image

from ...pool.checks import ImageError
from ...pool.images import decode_image, load_image
from .config import ServeConfig
from .errors import ApiError, refused

_DATA = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII | re.IGNORECASE)


def open_picture(where: str, url: str, config: ServeConfig) -> Image.Image:
    """Return a picture as the model's config shows it; `where`: its place in the request.

    Raises:
        ApiError: 400: another kind of URL, damaged bytes, too many pixels, or a file that is not below the root.
    """
    scheme = url[:20].partition(":")[0].lower()
    try:
        if scheme == "data":
            return decode_image(_data(where, url), where, config.max_pixels, config.pictures)
        if scheme == "file":
            return load_image(config.image_root, _path(where, url, config), config.max_pixels, pictures=config.pictures)
    except ImageError as error:
        raise _told(where, scheme, error) from error
    way_out = "give its bytes as data:image/…;base64,… (nothing is fetched)."
    raise refused(
        where, f"a picture's URL of the kind {scheme[:20]!r} is not taken; {way_out}", "unsupported_image_url"
    )


def _data(where: str, url: str) -> bytes:
    head = _DATA.match(url)
    if head is None:
        raise refused(where, "a data URI of a picture begins with data:image/…;base64, .", "invalid_image_url")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise refused(where, f"the data URI's base64 is damaged: {error}.", "invalid_image_url") from error


def _path(where: str, url: str, config: ServeConfig) -> str:
    if config.image_root is None:
        raise refused(where, "this server takes no file:// URLs (--allow-image-root).", "unsupported_image_url")
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise refused(where, "a file's URL is file:///PATH.", "invalid_image_url")
    return unquote(parts.path)


def _told(where: str, scheme: str, error: ImageError) -> ApiError:
    # what lies beside the root is nobody's business: not there, not a picture and not below the root read the same
    if scheme == "file" and error.reason in ("image_missing", "image_outside_root", "image_not_a_file"):
        return refused(where, "no such picture below the image root.", "image_not_found")
    return refused(where, str(error), error.reason)
