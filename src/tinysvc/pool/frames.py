"""Frames: the messages between server, workers and forkserver.

    server ──control──> forkserver ──fork──> worker
       └────────────── socketpair ─────────────┘

A frame is the lengths of its head and its body, the head in MessagePack, and the raw body. MessagePack holds only data:
no frame from a worker can run code in the server.

Server to worker: (job's number, kind, meta, size) and a body. A body of BIG bytes or more is in an arena, and `size` is
its length there. The arena's descriptor travels with the frame, followed by the descriptor of an empty arena for a big
result.

Worker to server: (job's number, kind, meta, size, memory held in bytes) and a body. The number is 0 before the first
job.

Server to forkserver: a command. Forkserver to server: frames without a body (forkserver_main.py).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from .arena import BIG

FRAME = struct.Struct("!IQ")
"""The lengths of a frame's head and body, in bytes."""
LENGTHS = FRAME.size

RUN_PROGRAM, CALL, CALL_STREAM = range(3)
"""Kinds of jobs: for the pool's program, a pickled function call, and a pickled call that returns an iterable."""

READY, FAILED, RESULT, PICKLED, ERROR, STREAM, CHUNK, END, LOG, BODY_IN_USE = range(10)
"""Kinds of frames from a worker. BODY_IN_USE precedes the end of a job that still refers to its body: the server does
not use the body's arena again."""

FINAL_KINDS = frozenset((RESULT, PICKLED, ERROR, END))
"""Frames that end a job."""

COMMAND = struct.Struct("!cI")
"""A command for the forkserver: an operation and a worker's number."""

FORK, KILL, KILL_WITH_STACK = b"f", b"k", b"l"

FORK_DESCRIPTORS = 3
"""Descriptors that travel with FORK: the worker's socket, an arena for its first big result, and its crash file."""

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


def frame(head: object, body_length: int = 0) -> bytes:
    """The start of a frame: the lengths and the encoded head. The body follows."""
    data = encode(head)
    return FRAME.pack(len(data), body_length) + data


def pickle_pieces(value: object) -> tuple[list[int], list[Any]]:
    """Pickle `value` without copying its big buffers (numpy arrays, for example).

    Returns:
        The lengths of the big buffers in bytes, and the pieces: each big buffer, then the pickle of the rest.
    """
    buffers: list[memoryview] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= BIG:
            buffers.append(raw)
        return raw.nbytes < BIG

    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=in_band)
    return [buffer.nbytes for buffer in buffers], [*buffers, data]


def unpickle_pieces(lengths: Sequence[int], body: bytes | memoryview) -> Any:
    """The inverse of `pickle_pieces`, from the lengths and the joined pieces. Arrays in the value refer to `body`."""
    if not lengths:
        return pickle.loads(body)
    view, position = memoryview(body), 0
    buffers = []
    for length in lengths:
        buffers.append(view[position : position + length])
        position += length
    return pickle.loads(view[position:], buffers=buffers)
