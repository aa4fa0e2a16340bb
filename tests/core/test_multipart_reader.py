"""core/multipart_reader.py: good and bad forms, cut into pieces in every way."""

from __future__ import annotations

from typing import Any

import pytest

from multipart_bodies import END, B, parsed, part, upload
from tinysvc.core import form_data, multipart_reader
from tinysvc.core.errors import HTTPError
from tinysvc.core.form_data import MAX_PARTS, FormData
from tinysvc.core.multipart_reader import MAX_PREAMBLE


def shown(form: FormData) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, bytes]]]]:
    return form.fields, {name: [(each.filename, each.read()) for each in files] for name, files in form.files.items()}


GOOD: dict[str, tuple[bytes, Any, Any]] = {
    "nothing": (END, {}, {}),
    "a-field": (part(b"1") + END, {"a": ["1"]}, {}),
    "two-of-a-name": (part(b"1") + part(b"2") + END, {"a": ["1", "2"]}, {}),
    "utf-8": (part("zw\u00f6lf".encode(), 'form-data; name="\u00fc"') + END, {"\u00fc": ["zw\u00f6lf"]}, {}),
    "lines": (part(b"\r\n\r\n--\r\n--bound") + END, {"a": ["\r\n\r\n--\r\n--bound"]}, {}),
    "empty": (part(b"") + END, {"a": [""]}, {}),
    "a-file": (upload(b"\0\xff\r\n") + END, {}, {"f": [("x.txt", b"\0\xff\r\n")]}),
    "an-empty-file": (upload(b"") + END, {}, {"f": [("x.txt", b"")]}),
    "no-file-chosen": (upload(b"", "") + END, {}, {}),
    "a-file-without-a-name": (upload(b"x", "") + END, {}, {"f": [("", b"x")]}),
    "both": (part(b"1") + upload(b"2") + END, {"a": ["1"]}, {"f": [("x.txt", b"2")]}),
    "crlf-first": (b"\r\n" + part(b"1") + END, {"a": ["1"]}, {}),
    "epilogue": (part(b"1") + END + b"\r\nmore", {"a": ["1"]}, {}),
    "no-last-line-end": (part(b"1") + END[:-2], {"a": ["1"]}, {}),
    "binary": (part(b"1", 'form-data; name="a"', "Content-Transfer-Encoding: 8bit") + END, {"a": ["1"]}, {}),
    "charset": (part(b"1", 'form-data; name="a"', "Content-Type: text/plain; charset=UTF-8") + END, {"a": ["1"]}, {}),
    "nested": (upload(b"--x", "n", "Content-Type: multipart/mixed; boundary=x") + END, {}, {"f": [("n", b"--x")]}),
    "preamble": (b"a MIME message\r\n" + part(b"1") + END, {"a": ["1"]}, {}),
    "two-line-ends-first": (b"\r\n\r\n" + part(b"1") + END, {"a": ["1"]}, {}),
    "latin-1": (
        part(b"\xfc", 'form-data; name="a"', "Content-Type: text/x; charset=ISO-8859-1") + END,
        {"a": ["\u00fc"]}, {},
    ),
    "windows": (
        part(b"\x80", 'form-data; name="a"', "Content-Type: text/x; charset=windows-1252") + END,
        {"a": ["\u20ac"]}, {},
    ),
    "ascii": (part(b"1", 'form-data; name="a"', "Content-Type: text/x; charset=ascii") + END, {"a": ["1"]}, {}),
    "_charset_": (
        part(b"latin1", 'form-data; name="_charset_"') + part(b"\xfc") + END,
        {"_charset_": ["latin1"], "a": ["\u00fc"]}, {},
    ),
    "latin-1-name": (part(b"1").replace(b'"a"', b'"\xfc"') + END, {"\u00fc": ["1"]}, {}),
    "extended": (part(b"1", "form-data; name=f; filename*=UTF-8''%D1%84.png") + END, {}, {"f": [("\u0444.png", b"1")]}),
    "extended-latin": (
        part(b"1", "form-data; name=f; filename=x; filename*=iso-8859-1'de'%FC") + END,
        {}, {"f": [("\u00fc", b"1")]},
    ),
    "extended-broken": (
        part(b"1", "form-data; name=f; filename=x; filename*=UTF-8''%FF") + END,
        {}, {"f": [("x", b"1")]},
    ),
    "extended-quoted": (
        part(b"1", 'form-data; name=f; filename="; filename*=UTF-8\'\'y"') + END,
        {}, {"f": [("; filename*=UTF-8''y", b"1")]},
    ),
    "extended-folder": (part(b"1", "form-data; name=f; filename*=UTF-8''..%2F..%5Cx") + END, {}, {"f": [("x", b"1")]}),
    "a-big-field": (part(b"x" * 3_000_000) + END, {"a": ["x" * 3_000_000]}, {}),
    "quoted": (part(b"1", 'form-data; name="a%22b"') + END, {'a"b': ["1"]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("step", [1, 7, 10**9])
@pytest.mark.parametrize("case", GOOD)
def test_segmentation_does_not_change_the_form(case: str, step: int) -> None:
    body, fields, files = GOOD[case]
    assert shown(parsed(body, step)) == (fields, files)


BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "malformed"),
    "no-boundary": (b"x" * 1000, 400, "boundary"),
    "another-boundary": (part(b"1").replace(b"boundary", b"Boundary") + END, 400, "malformed"),
    "before-the-boundary": (b"x" * (MAX_PREAMBLE + 1) + b"\r\n" + part(b"1") + END, 400, "boundary"),
    "line-ends-first": (b"\r" * 1_000_000 + part(b"1") + END, 400, "boundary"),
    "no-last-boundary": (part(b"1"), 400, "malformed"),
    "cut-in-a-header": (part(b"1")[:30], 400, "malformed"),
    "no-name": (part(b"1", "form-data") + END, 400, "a part has no name"),
    "empty-name": (part(b"1", 'form-data; name=""') + END, 400, "a part has no name"),
    "no-disposition": (f"--{B}\r\nA: b\r\n\r\n1\r\n".encode() + END, 400, "Content-Disposition"),
    "attachment": (part(b"1", 'attachment; name="a"') + END, 400, "Content-Disposition"),
    "bare-line-feeds": (part(b"1").replace(b"\r\n", b"\n") + END, 400, "malformed"),
    "line-feed-in-a-header": (part(b"1", 'form-data; name="a"; x="\n"') + END, 400, "malformed"),
    "control-in-a-name": (part(b"1", 'form-data; name="a\x07"') + END, 400, "control character"),
    "control-in-a-filename": (upload(b"1", "a\x00b") + END, 400, "control character"),
    "encoded-control": (upload(b"1", "a%0Ab") + END, 400, ""),
    "base64": (part(b"MQ==", 'form-data; name="a"', "Content-Transfer-Encoding: base64") + END, 400, "base64"),
    "no-utf-8": (part(b"\xff") + END, 400, "the field 'a' is not UTF-8"),
    "charset": (part(b"1", 'form-data; name="a"', "Content-Type: text/x; charset=utf-16") + END, 400, "'utf-16'"),
    "unknown-charset": (
        part(b"1", 'form-data; name="a"', "Content-Type: text/x; charset=x") + END,
        400, "the charset 'x'",
    ),
    "no-text-charset": (
        part(b"1", 'form-data; name="a"', "Content-Type: text/x; charset=zlib") + END,
        400, "not supported",
    ),
    "extended-control": (part(b"1", "form-data; name=f; filename*=UTF-8''a%00b") + END, 400, "control character"),
    "too-many-parts": (part(b"") * (MAX_PARTS + 1) + END, 413, "more than 10000 parts"),
    "big-header": (part(b"1", 'form-data; name="a"', "X: " + "x" * 5000) + END, 413, "headers of 4096 bytes"),
    "endless-header": (f"--{B}\r\nX: ".encode() + b"x" * 1_000_000, 413, "headers of 4096 bytes"),
    "many-headers": (part(b"1", 'form-data; name="a"', *["X: y"] * 10) + END, 413, "8 headers"),
}  # fmt: skip


@pytest.mark.parametrize("step", [1, 999, 10**9])
@pytest.mark.parametrize("case", BAD)
def test_bad_form_is_refused_for_every_segmentation(case: str, step: int) -> None:
    body, status, detail = BAD[case]
    if step == 1 and len(body) > 100_000:
        body = body[:100_000]
        if case == "too-many-parts":
            pytest.skip("what makes it bad is cut off")
    with pytest.raises(HTTPError) as caught:
        parsed(body, step)
    if case != "encoded-control":
        assert caught.value.status == status
        assert detail in caught.value.detail


def test_limit_of_parts_is_exact() -> None:
    assert len(parsed(part(b"") * MAX_PARTS + END, 10**9).fields["a"]) == MAX_PARTS


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/cron.d/x", "x"),
        ("/etc/passwd", "passwd"),
        ("C:\\\\Users\\\\ada\\\\photo.jpg", "photo.jpg"),
        ("..", ""),
        (".", ""),
        ("a/..", ""),
        ("/", ""),
        (".hidden", ".hidden"),
        ("\u202fScreenshot \u00e9.png", "\u202fScreenshot \u00e9.png".strip()),
        ("NUL", "NUL"),
    ],
)
def test_filename_has_no_path(sent: str, filename: str) -> None:
    (found,) = parsed(upload(b"x", sent) + END, 10**9).files["f"]
    assert found.filename == filename


def test_limits_are_as_documented() -> None:
    assert (form_data.MAX_PARTS, multipart_reader.MAX_PART_HEADERS, multipart_reader.MAX_BOUNDARY) == (10_000, 8, 70)
