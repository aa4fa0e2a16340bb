"""frames.py: pickles whose big buffers are separate pieces."""

from __future__ import annotations

import numpy
import pytest

from tinysvc.pool.arena import BIG
from tinysvc.pool.frames import (
    pickle_pieces,
    unpickle_pieces,
)


@pytest.mark.parametrize("sizes", [[], [10], [BIG], [BIG, 10, 2 * BIG]])
def test_big_buffers_are_not_pickled(sizes: list[int]) -> None:
    arrays = [numpy.arange(size, dtype="u1") for size in sizes]
    lengths, pieces = pickle_pieces({"arrays": arrays})
    assert lengths == [size for size in sizes if size >= BIG]
    assert len(pieces[-1]) < 5000
    restored = unpickle_pieces(lengths, memoryview(b"".join(pieces)))
    assert all(numpy.array_equal(a, b) for a, b in zip(restored["arrays"], arrays, strict=True))
