"""Thumbnails and blur. Try: curl --data-binary @photo.jpg 'http://127.0.0.1:8000/images/thumbnail?size=200' -o out.jpg

Decoding a photo takes a tenth of a second of pure computation. On the event loop it would block all other requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Annotated

import msgspec

from tinysvc import HTTPError, Query, Response, cpu_route

try:  # at the top: loaded once, before the workers are forked, so all workers share it
    from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
except ImportError as error:
    missing = f"Pillow cannot be imported ({error}); pip install 'tinysvc[examples]'"
else:
    missing = ""

MAX_PIXELS = 50_000_000
"""A few kilobytes can decode to gigabytes of pixels. 50 million are 200 MB in a worker; most cameras have fewer."""

MODES = {"JPEG": "RGB", "PNG": "RGBA"}
BROKEN = (OSError, SyntaxError, ValueError)  # what Pillow's decoders raise
CHUNK = 64 * 1024
REFUSED = {400: "The image is broken.", 413: "It has too many pixels.", 415: "It is neither JPEG nor PNG."}


@cpu_route("/thumbnail", methods=["POST"], timeout=10.0, responses=REFUSED)
def thumbnail(image: bytes, size: Annotated[int, msgspec.Meta(ge=1, le=1024), Query()] = 128) -> Response:
    """The image, reduced to fit into `size` x `size` pixels."""
    opened = open_image(image)
    opened.draft("RGB", (2 * size, 2 * size))  # decodes a JPEG at a fraction of its size, if that is enough
    pixels = decode(opened)
    pixels.thumbnail((size, size))
    return image_response(pixels, opened)


@cpu_route("/blur", methods=["POST"], timeout=10.0, responses=REFUSED)
def blur(image: bytes, radius: Annotated[int, msgspec.Meta(ge=1, le=100), Query()] = 4) -> Response:
    """The image, blurred over `radius` pixels."""
    opened = open_image(image)
    return image_response(decode(opened).filter(ImageFilter.GaussianBlur(radius)), opened)


def open_image(data: bytes) -> Image.Image:
    """The image after reading only its head, which is enough to refuse it."""
    if missing:
        raise HTTPError(503, missing)
    try:
        image = Image.open(BytesIO(data), formats=list(MODES))
    except UnidentifiedImageError:
        raise HTTPError(415, "The body is neither a JPEG nor a PNG image.") from None
    except Image.DecompressionBombError:
        raise HTTPError(413, f"The image has more than {MAX_PIXELS:,} pixels.") from None
    except BROKEN as error:
        raise broken(error) from None
    if image.width * image.height > MAX_PIXELS:
        raise HTTPError(413, f"The image has {image.width * image.height:,} pixels, more than {MAX_PIXELS:,}.")
    return image


def decode(image: Image.Image) -> Image.Image:
    """The pixels, upright. Cameras store the orientation in EXIF data, which the result does not contain."""
    try:
        return ImageOps.exif_transpose(eight_bits(image).convert(MODES[format_of(image)]))
    except BROKEN as error:
        raise broken(error) from None


def eight_bits(image: Image.Image) -> Image.Image:
    """Reduce 16 bits of grey, as in scans and depth maps, to 8. Pillow's `convert` makes all above 255 white."""
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")


def profile_of(image: Image.Image) -> bytes | None:
    """The colour profile, which gives the numbers their meaning. A grey or CMYK profile does not fit RGB."""
    profile: bytes | None = image.info.get("icc_profile")
    return profile if image.mode in ("RGB", "RGBA", "P") else None


def broken(error: Exception) -> HTTPError:
    return HTTPError(400, f"The image is broken: {error}.")


def format_of(image: Image.Image) -> str:
    return "PNG" if image.format == "PNG" else "JPEG"  # the third format is MPO: a JPEG followed by a second picture


def image_response(pixels: Image.Image, original: Image.Image) -> Response:
    """The pixels in the format of the original, as a stream: each item is sent while the generator runs."""

    def chunks() -> Iterator[bytes]:
        file = BytesIO()
        pixels.save(file, format_of(original), icc_profile=profile_of(original))
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk

    return Response(chunks(), content_type=f"image/{format_of(original).lower()}")
