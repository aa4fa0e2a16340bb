"""Plain values as messages."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from rpc_cases import codec_of
from tinysvc.core.errors import UnencodableResult


@pytest.mark.parametrize(
    ("annotation", "value", "detail"),
    [
        (int, 2**63, "does not fit into 64 bits"),
        (int, 1.5, "an integer was expected, and 1.5 came"),
        (int, True, "an integer was expected, and True came"),
        (float, "x", "a number was expected"),
        (bool, 1, "true or false was expected"),
        (str, 7, "a text was expected"),
        (str, "\ud800", "half of a surrogate pair"),
        (str, None, "null came"),
        (bytes, 7, "bytes was expected"),
        (datetime, datetime(2026, 1, 1), "has no time zone"),
        (timedelta, timedelta(days=999_999_999), "10,000 years"),
        (list[int], 7, "a list was expected"),
        (list[int], [1, "x"], r"at \[1\], .* an integer was expected"),
        (dict[str, int], [1], "an object was expected"),
        (dict[str, int], {"a": "x"}, r"at \['a'\], .* an integer was expected"),
        (int | str, 1.5, "a member of the union was expected"),
        (Any, 2**60, "loses digits"),
    ],
)
def test_value_that_does_not_fit_its_annotation(annotation: Any, value: Any, detail: str) -> None:
    codec = codec_of(int, result=annotation)
    with pytest.raises(UnencodableResult, match=detail):
        codec.encode_result(value)
