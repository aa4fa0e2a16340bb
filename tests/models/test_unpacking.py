"""models/unpacking.py: the content of compressed files, also of damaged ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable

import pytest

from tinysvc.models import unpacking
from tinysvc.models.unpacking import Effort, Unreadable, unpacked

CONTENT = os.urandom(3000) + bytes(200_000) + os.urandom(70_000)
PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, zlib.compress, bz2.compress, lzma.compress]


def alone(content: bytes) -> bytes:
    return lzma.compress(content, format=lzma.FORMAT_ALONE)


def opened(packed: bytes) -> io.BufferedReader:
    content = unpacked(io.BytesIO(packed), packed[:512], Effort(10**9))
    assert isinstance(content, io.BufferedReader)
    return content


@pytest.mark.parametrize("pack", [*PACKERS, alone])
def test_content_is_unpacked(pack: Callable[[bytes], bytes]) -> None:
    content = opened(pack(CONTENT))
    assert content.read(10) == CONTENT[:10]
    assert content.seek(200_000) == 200_000
    assert content.read(5) == CONTENT[200_000:200_005]
    assert content.seek(20, os.SEEK_CUR) == 200_025
    assert content.seek(0) == 0
    assert content.read() == CONTENT
    assert content.seek(-4, os.SEEK_END) == len(CONTENT) - 4
    assert content.read() == CONTENT[-4:]
    assert content.seek(1, os.SEEK_END) == len(CONTENT)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_streams_may_follow_each_other(pack: Callable[[bytes], bytes]) -> None:
    assert opened(pack(b"first,") + pack(b"second") + b"\0\0").read() == b"first,second"


@pytest.mark.parametrize("start", [b"x^2 + y^2", b"\x5d\0\0 is something else", b"BZh but no block", b"\x1f\x8b\xff"])
def test_other_content_has_nothing(start: bytes) -> None:
    assert len(opened(start).read()) < 10


def test_plain_content_is_not_unpacked() -> None:
    for start in (b"", b"x", b"plain text", b"\x89PNG"):
        assert unpacked(io.BytesIO(start), start, Effort(10**9)) is None


@pytest.mark.parametrize("cut", [1, 40])
def test_bytes_in_front_of_a_damage_are_found(cut: int) -> None:
    stored = zlib.compress(os.urandom(300), 0)
    damaged = stored[:-cut] + bytes(byte ^ 255 for byte in stored[-cut:])
    assert len(opened(damaged).read()) >= 300 - cut


def test_damage_far_behind_the_beginning_is_an_error() -> None:
    packed = zlib.compress(os.urandom(100_000))
    damaged = packed[:50_000] + bytes(byte ^ 255 for byte in packed[50_000:50_100]) + packed[50_100:]
    with pytest.raises(Unreadable):
        opened(damaged).read()


def test_content_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_UNPACKED", 100_000)
    assert len(opened(zlib.compress(bytes(100_000))).read()) == 100_000
    with pytest.raises(Unreadable):
        opened(zlib.compress(bytes(200_000))).read()
