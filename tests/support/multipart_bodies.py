"""Bodies of forms, and their parsed fields."""

from __future__ import annotations

from tinysvc.core.form_data import FormData
from tinysvc.core.forms import FormParser

B = "boundary"
MULTIPART = f"multipart/form-data; boundary={B}"
URLENCODED = "application/x-www-form-urlencoded"
END = f"--{B}--\r\n".encode()


def part(content: bytes, disposition: str = 'form-data; name="a"', *headers: str) -> bytes:
    lines = [f"--{B}", f"Content-Disposition: {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def upload(content: bytes, filename: str = "x.txt", *headers: str, name: str = "f") -> bytes:
    return part(content, f'form-data; name="{name}"; filename="{filename}"', *headers)


def parsed(body: bytes, step: int, content_type: str = MULTIPART) -> FormData:
    parser = FormParser(content_type)
    for start in range(0, len(body), step):
        parser.feed(body[start : start + step])
    return parser.finish()
