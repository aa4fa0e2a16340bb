"""compressed_bodies.py: bodies with a Content-Encoding, and forms."""

from __future__ import annotations

import gzip

import pytest

from binding_cases import request
from tinysvc.binding.compressed_bodies import is_compressed, typed_body
from tinysvc.core.errors import HTTPError

COMPRESSED = gzip.compress(b"a=1&a=2")
HEADERS = {"content-encoding": "gzip", "content-type": "application/x-www-form-urlencoded"}


def test_typed_body_is_decompressed() -> None:
    assert is_compressed(request("", HEADERS))
    assert typed_body(request("", HEADERS), COMPRESSED, "json", 100) == b"a=1&a=2"


def test_raw_body_stays_compressed() -> None:
    assert typed_body(request("", HEADERS), COMPRESSED, "bytes", 100) == COMPRESSED


def test_form_is_parsed() -> None:
    given = request("", HEADERS)
    typed_body(given, COMPRESSED, "form", 100)
    assert given.form_data is not None
    assert given.form_data.fields == {"a": ["1", "2"]}


def test_body_over_the_limit_gets_413() -> None:
    with pytest.raises(HTTPError) as raised:
        typed_body(request("", HEADERS), COMPRESSED, "json", 3)
    assert raised.value.status == 413
