"""packed_bodies.py: bodies with a Content-Encoding, and forms."""

from __future__ import annotations

import gzip

import pytest

from binding_cases import request
from tinysvc.binding.packed_bodies import is_packed, typed_body
from tinysvc.core.errors import HTTPError

PACKED = gzip.compress(b"a=1&a=2")
HEADERS = {"content-encoding": "gzip", "content-type": "application/x-www-form-urlencoded"}


def test_typed_body_is_unpacked() -> None:
    assert is_packed(request("", HEADERS))
    assert typed_body(request("", HEADERS), PACKED, "json", 100) == b"a=1&a=2"


def test_raw_body_stays_packed() -> None:
    assert typed_body(request("", HEADERS), PACKED, "bytes", 100) == PACKED


def test_form_is_parsed() -> None:
    given = request("", HEADERS)
    typed_body(given, PACKED, "form", 100)
    assert given.form_data is not None
    assert given.form_data.fields == {"a": ["1", "2"]}


def test_body_over_the_limit_gets_413() -> None:
    with pytest.raises(HTTPError) as raised:
        typed_body(request("", HEADERS), PACKED, "json", 3)
    assert raised.value.status == 413
