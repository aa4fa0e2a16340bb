"""proto_bytes.py beside protobuf's own classes."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import EnumValueDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.core.proto_bytes import bytes_field, number_field, read_fields


@given(name=st.text(), number=st.integers(-(2**31), 2**31 - 1))
def test_bytes_are_those_of_protobuf(name: str, number: int) -> None:
    written = bytes_field(1, name) + number_field(2, number)
    assert written == EnumValueDescriptorProto(name=name, number=number).SerializeToString(deterministic=True)
    read = dict(read_fields(written))
    assert read == {1: name.encode(), 2: number % 2**64}


@given(st.integers(1, 2**29 - 1), st.binary(max_size=300))
def test_fields_come_back(field: int, value: bytes) -> None:
    assert list(read_fields(bytes_field(field, value) * 2 + number_field(field, len(value)))) == [
        (field, value),
        (field, value),
        (field, len(value)),
    ]


@pytest.mark.parametrize("end", [b"\x80", b"\x12", b"\x12\x05abc", b"\x15\0\0\0\0", b"\x12\xff"])
def test_reading_ends_before_what_is_no_field(end: bytes) -> None:
    assert list(read_fields(number_field(1, 7) + end)) == [(1, 7)]


def test_number_has_no_fields() -> None:
    assert list(read_fields(7)) == []
