"""models/pickles.py: pickles are found by content, also inside of archives and compressed files."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinysvc.models import pickles, unpacking
from tinysvc.models.pickles import find_pickles, has_pickle


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


PICKLE = pickle.dumps(Code())


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(**members: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def saved(*arrays: Any, allow_pickle: bool = True) -> bytes:
    file = io.BytesIO()
    for array in arrays:
        np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def savez(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def safetensors(**tensors: Any) -> bytes:
    header, data = {}, b""
    for name, array in tensors.items():
        content = array.tobytes()
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


OBJECTS = np.array([Code(), None], dtype=object)
NUMBERS = np.arange(1000, dtype=np.float32)

WITH_PICKLE = {
    "pickle": PICKLE,
    "data in a pickle": pickle.dumps({"a": 1}),
    "torch": zipped(**{"archive/version": b"3", "archive/data.pkl": PICKLE, "archive/data/0": bytes(400)}),
    "torch, old": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + PICKLE,
    "npy": saved(OBJECTS),
    "npy with fields": saved(np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")])),
    "npz": savez(a=NUMBERS, b=OBJECTS),
    "second array": saved(NUMBERS, np.array(["text", "more"]), OBJECTS),
    "pickle behind arrays": saved(NUMBERS, NUMBERS.astype("<M8[ns]")) + PICKLE,
    "npy with another word for objects": saved(OBJECTS).replace(b"'|O'", b"'obj'"),
    "joblib, zlib": zlib.compress(PICKLE, 3),
    "joblib, gzip": gzip.compress(PICKLE),
    "joblib, bz2": bz2.compress(PICKLE),
    "joblib, xz": lzma.compress(PICKLE),
    "joblib, lzma": lzma.compress(PICKLE, format=lzma.FORMAT_ALONE),
    "joblib, lz4": b"\x04\x22\x4d\x18" + bytes(10),
    "compressed, the end is damaged": zlib.compress(PICKLE, 0)[:-2],
    "behind a long text": zlib.compress(pickle.dumps([bytes(1_000_000), Code()])),
    "tar": tarred(readme=b"text", model=PICKLE),
    "tar.gz": gzip.compress(tarred(readme=b"text", model=PICKLE)),
    "tar whose first name is a pickle": tarred(**{"cos\nsystem\n(S'true'\ntR.": b""}),
    "zip in a zip": zipped(inner=zipped(inner=PICKLE)),
    "zip behind other content": b"#!/bin/sh\n" + zipped(model=PICKLE),
    "zip with a wrong checksum": zipped(model=PICKLE).replace(zlib.crc32(PICKLE).to_bytes(4, "little"), b"\0\0\0\0"),
    "zip without its end": zipped(model=b"text")[:-30],
    "too deep": gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"text"))))),
}

WITHOUT_PICKLE = {
    "empty": b"",
    "text": b"cat\ndog\n",
    "json": b'{"a": [1, 2]}',
    "formula": b"x^2 + y^2",
    "safetensors": safetensors(weight=NUMBERS, bias=NUMBERS[:640]),
    "npy": saved(NUMBERS, np.eye(3), np.array(["text"]), np.array([b"bytes"]), np.array(True)),
    "npy with fields": saved(np.zeros(3, dtype=[("a", "i4"), ("b", "f8", (2,)), ("c", [("d", "U3")])])),
    "npy of dates": saved(np.array(["2026-01-01"], dtype="M8[D]"), np.array([3], dtype="m8[25us]")),
    "npz": savez(a=NUMBERS, b=np.array("text"), c=np.zeros((0, 3))),
    "raw numbers": NUMBERS.tobytes(),
    "zip": zipped(config=b"{}", empty=b"", weights=NUMBERS.tobytes()),
    "tar.xz": lzma.compress(tarred(config=b"{}", weights=NUMBERS.tobytes())),
    "csv.gz": gzip.compress(b"a,b\n1,2\n" * 10_000),
    "onnx": b"\x08\x09\x12\x07pytorch\x1a\x05" + bytes(100),
}


@pytest.mark.parametrize("name", WITH_PICKLE)
def test_pickle_is_found(name: str) -> None:
    assert has_pickle(io.BytesIO(WITH_PICKLE[name]))


@pytest.mark.parametrize("name", WITHOUT_PICKLE)
def test_other_content_is_not_found(name: str) -> None:
    assert not has_pickle(io.BytesIO(WITHOUT_PICKLE[name]))


def test_files_are_found_by_content_not_by_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights.safetensors").write_bytes(PICKLE)
    (tmp_path / "model.pkl").write_bytes(b"text")
    assert find_pickles(tmp_path, ["model.pkl", "sub/weights.safetensors"]) == ("sub/weights.safetensors",)


@pytest.mark.parametrize(
    "header", [b"{'descr': '<f4', 'shape': (-1,)}", b"{'descr': '<f4'}", b"{" * 3, b"{'descr': [], 'shape': ()}"]
)
def test_impossible_header_of_an_array_counts_as_a_pickle(header: bytes) -> None:
    assert has_pickle(io.BytesIO(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(100)))
    assert has_pickle(io.BytesIO(b"\x93NUMPY\x02\0\xff\xff\xff\xff"))


def test_archive_with_too_many_files_counts_as_a_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_MEMBERS", 1)
    assert has_pickle(io.BytesIO(zipped(a=b"", b=b"")))
    assert has_pickle(io.BytesIO(tarred(a=b"", b=b"")))


def test_work_for_one_version_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_EFFORT", 20_000)
    harmless = b"N" * 9000 + b"\xff"  # looks like a pickle for long
    (tmp_path / "harmless.bin").write_bytes(harmless)
    assert find_pickles(tmp_path, ["harmless.bin"]) == ()
    assert find_pickles(tmp_path, ["harmless.bin"] * 100) == ("harmless.bin",)  # the third one
    assert not has_pickle(io.BytesIO(zipped(a=harmless)))
    assert has_pickle(io.BytesIO(zipped(**{f"m{number}": harmless for number in range(3)})))
    assert has_pickle(io.BytesIO(zipped(a=zipped(b=b"S" + bytes(9_000_000)))))


def test_table_of_an_archive_is_not_read_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_READ", 1000)
    assert not has_pickle(io.BytesIO(zipped(a=b"text")))
    assert has_pickle(io.BytesIO(zipped(**{f"m{number}": b"" for number in range(30)})))
