"""wire/ranges.py: parsed Range headers, and bodies of several parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tinysvc.wire.ranges import MAX_RANGES, MultipartRanges, Part, parse_range

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-999", [(0, 1000)]),
        ("bytes=0-", [(0, 1000)]),
        ("bytes=999-", [(999, 1)]),
        ("bytes=500-99999", [(500, 500)]),
        ("bytes=-1", [(999, 1)]),
        ("bytes=-1000", [(0, 1000)]),
        ("bytes=-99999", [(0, 1000)]),
        ("BYTES=0-0", [(0, 1)]),
        ("bytes= 0-0 ,\t2-3", [(0, 1), (2, 2)]),
        ("bytes=0-0,999-", [(0, 1), (999, 1)]),
        ("bytes=0-9,10-19", [(0, 10), (10, 10)]),
        ("bytes=0-9,-10", [(0, 10), (990, 10)]),
        ("bytes=0-9,1000-", [(0, 10)]),
        ("bytes=1000-", []),
        ("bytes=1000-2000", []),
        ("bytes=-0", []),
        ("bytes=1000-,2000-", []),
        ("bytes=" + ",".join(f"{i}-{i}" for i in range(MAX_RANGES)), [(i, 1) for i in range(MAX_RANGES)]),
        # to be ignored
        ("bytes=" + ",".join(f"{i}-{i}" for i in range(MAX_RANGES + 1)), None),
        ("bytes=" + "0-," * 2700, None),
        ("bytes=0-9,5-14", None),
        ("bytes=10-19,0-9", None),
        ("bytes=5-1", None),
        ("bytes=", None),
        ("bytes", None),
        ("", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=0-0x1", None),
        ("bytes=0 - 1", None),
        ("bytes=+0-1", None),
        ("bytes=0-0,", None),
        ("bytes=\u0660-\u0661", None),
        ("bytes=" + "9" * 19 + "-", None),
        ("items=0-0", None),
        ("bytes=0-0-0", None),
    ],
)
def test_range_header_is_parsed(header: str, parts: list[tuple[int, int]] | None) -> None:
    assert parse_range(header, SIZE) == (None if parts is None else [Part(*each) for each in parts])


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_empty_file_has_no_parts(header: str) -> None:
    assert parse_range(header, 0) == []


def test_several_parts_are_one_multipart_body(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * 4000)
    parts = [Part(0, 2), Part(100, 500_000), Part(999_999, 1)]
    file = open(path, "rb", buffering=0)  # noqa: SIM115
    many = MultipartRanges(file, parts, 1_000_000, "text/plain")

    async def collected() -> bytes:
        return b"".join([piece async for piece in many.pieces()])

    body = asyncio.run(collected())
    boundary = many.content_type.partition("boundary=")[2]
    assert many.content_type == f"multipart/byteranges; boundary={boundary}"
    assert len(body) == many.size
    first, *middle, last = body.split(f"--{boundary}".encode())
    assert (first, last) == (b"", b"--\r\n")
    for part, found in zip(parts, middle, strict=True):
        head, _, content = found.partition(b"\r\n\r\n")
        end = part.start + part.size - 1
        assert head.decode() == f"\r\nContent-Type: text/plain\r\nContent-Range: bytes {part.start}-{end}/1000000"
        assert content == path.read_bytes()[part.start : end + 1] + b"\r\n"
    assert file.closed
