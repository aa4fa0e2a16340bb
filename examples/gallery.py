"""A gallery: upload photos, look at thumbnails. Open http://127.0.0.1:8000/gallery, or:

    curl -F photos=@photo.jpg http://127.0.0.1:8000/gallery/photos
    curl -o small.jpg http://127.0.0.1:8000/gallery/thumbnails/NAME

A worker checks each upload, which it gets as a file. Workers also make the thumbnails: once for simultaneous requests,
and cached for a minute. The photos themselves are static files. Their folder is deleted when the server stops, unless
the variable GALLERY_FOLDER names one.
"""

from __future__ import annotations

import atexit
import html
import os
import shutil
import sys
import tempfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Annotated

import msgspec

from tinysvc import HTTPError, Request, Response, Service, UploadFile, cpu_route, io_route
from tinysvc.web.negotiation import accepted as best_type
from tinysvc.web.negotiation import redirect
from tinysvc.web.security import SecurityHeaders
from tinysvc.web.static import StaticFiles

try:  # at the top: loaded once, before the workers are forked, so all workers share it
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError as error:
    missing = f"Pillow cannot be imported ({error}); pip install 'tinysvc[examples]'"
else:
    missing = ""

FORMATS = {"JPEG": ".jpg", "PNG": ".png"}
MAX_PIXELS = 50_000_000
"""A few kilobytes can decode to gigabytes of pixels."""

MAX_PHOTOS = 200
THUMBNAIL = 240

Name = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\.(jpg|png)$")]


def folder() -> Path:
    """The folder of the photos. Workers import this module, too, and must use the server's folder."""
    if "GALLERY_FOLDER" not in os.environ:
        path = os.environ["GALLERY_FOLDER"] = tempfile.mkdtemp(prefix="tinysvc-gallery-")
        atexit.register(_remove, path, os.getpid())
    found = Path(os.environ["GALLERY_FOLDER"])
    found.mkdir(exist_ok=True)
    return found


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


FOLDER = folder()


@cpu_route(
    "/photos",
    methods=["POST"],
    max_body_size=64 << 20,
    timeout=20.0,
    responses={201: list[str], 303: "They are in the gallery.", 507: "The gallery is full."},
)
def upload(request: Request, photos: list[UploadFile]) -> Response:
    """Keep JPEG and PNG photos under generated names: the names that the client sends are not trusted."""
    if not photos:
        raise HTTPError(422, "No photo was chosen: send them as files, in the field photos.")
    names = [keep(photo) for photo in photos]
    if best_type(request, ["application/json", "text/html"]) == "text/html":
        return redirect(request.raw_path.removesuffix("/photos"))
    return Response(names, 201)


def keep(photo: UploadFile) -> str:
    if missing:
        raise HTTPError(501, missing)
    try:
        image = Image.open(photo.file, formats=list(FORMATS))
        if image.width * image.height > MAX_PIXELS:
            raise HTTPError(413, f"{photo.filename} has more than {MAX_PIXELS:,} pixels.")
        image.load()
    except UnidentifiedImageError:
        raise HTTPError(415, f"{photo.filename} is no JPEG or PNG photo.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HTTPError(415, f"{photo.filename} is no JPEG or PNG photo: {error}.") from None
    if sum(1 for _ in FOLDER.iterdir()) >= MAX_PHOTOS:
        raise HTTPError(507, f"The gallery is full: it takes {MAX_PHOTOS} photos.")
    photo.file.seek(0)
    name = sha256(photo.read()).hexdigest()[:16] + FORMATS["PNG" if image.format == "PNG" else "JPEG"]
    photo.save(FOLDER / name)
    return name


@cpu_route("/thumbnails/{name}", cache=60, responses={404: "There is no such photo."})
def thumbnail(name: Name) -> Response:
    """The photo, small. Simultaneous requests for the same photo compute it once."""
    try:
        image: Image.Image = Image.open(FOLDER / name)
    except FileNotFoundError:
        raise HTTPError(404, "There is no such photo.") from None
    image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
    profile = (
        image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    )  # other profiles do not fit RGB
    if image.mode.startswith("I"):  # 16 bits of grey; `convert` alone makes every value above 255 white
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    small = ImageOps.exif_transpose(image.convert("RGB"))
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = BytesIO()
    small.save(file, "JPEG", quality=80, icc_profile=profile)
    return Response(file.getvalue(), content_type="image/jpeg")


photos = StaticFiles(FOLDER, prefix="/originals", cache_control="max-age=31536000, immutable")


@io_route("/")
async def page(request: Request) -> Response:
    """All photos, the newest first."""
    base = html.escape(request.raw_path.rstrip("/"), quote=True)
    newest = sorted(FOLDER.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    figures = [
        f'<a href="{base}/originals/{path.name}"><img src="{base}/thumbnails/{path.name}" alt="photo {number}"></a>'
        for number, path in enumerate(newest, 1)
    ]
    text = PAGE.replace("BASE", base).replace("PHOTOS", "\n".join(figures) or "<p>There is none yet.</p>")
    return Response(text, content_type="text/html; charset=utf-8")


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>gallery</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
#photos { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: 1rem }
img { height: 10rem; border-radius: 6px; display: block }
input, button { font: inherit }
</style>
<h1>Gallery</h1>
<form action="BASE/photos" method="post" enctype="multipart/form-data">
  <input type="file" name="photos" accept="image/jpeg,image/png" multiple required aria-label="photos">
  <button>Upload</button>
</form>
<div id="photos">
PHOTOS
</div>
</html>
"""

POLICY = "default-src 'self'; style-src 'unsafe-inline'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
"""The default policy, except that the page contains its own style."""

service = Service(sys.modules[__name__], middleware=[SecurityHeaders(content_security_policy=POLICY)])
