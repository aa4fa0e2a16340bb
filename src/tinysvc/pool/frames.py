"""Frames: the messages between server, workers and forkserver.

    server ──control──> forkserver ──fork──> worker
       └────────────── socketpair ─────────────┘

A frame is the lengths of its head and its body, the head in MessagePack, and the raw body. Each head is one of the
Structs below: an array of a number that names the Struct, and the values of its fields. MessagePack holds only data: no
frame from a worker can run code in the server. A head of another form is a protocol error of its sender.

    server to worker        RunProgram, Call, CallStream
    worker to server        Ready or StartFailed; for each job Result, Pickled, JobError, or StreamBegin .. StreamEnd,
                            and Questions before that; LogRecord and Report at any time
    server to worker        an Answer to each Question
    forkserver to server    Ready or StartFailed; for each worker WorkerEnd
    server to forkserver    a COMMAND

A body of BIG bytes or more is in an arena, and `size` is its length there; else `size` is 0. The arena's descriptor
travels with the frame, followed by the descriptor of an empty arena for a big result.

The pool does not know the content of `meta`, the part of a head that a program and its user define. Their types are in
the program's `message_types`.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from .arena import BIG

FRAME = struct.Struct("!IQ")
"""The lengths of a frame's head and body, in bytes."""
LENGTHS = FRAME.size

M = TypeVar("M")


class MessageTypes(NamedTuple):
    """The types of `meta` of a program's jobs and of their results. Any: whatever MessagePack can carry."""

    job: Any = Any
    result: Any = Any
    question: Any = Any
    answer: Any = Any


def message_types(program: object) -> MessageTypes:
    """The types that a program declares by its attribute `message_types`."""
    return getattr(program, "message_types", MessageTypes())


class Head(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The head of a frame. No head is a part of a reference cycle, so the garbage collector need not know them."""


class ErrorText(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """An exception as text: nothing of it has to be unpickled."""

    type_name: str
    message: str
    traceback: str
    """"" for our own errors: their message says all."""
    http: tuple[int, str, list[tuple[str, str]]] | None = None
    """Status, detail and headers of an HTTPError: a stream that has begun ends with it."""


# To a worker


class RunProgram(Head, Generic[M], tag=0):
    """A job for the pool's program."""

    number: int
    size: int
    meta: M


class Call(Head, tag=1):
    """A pickled call of a function."""

    number: int
    size: int
    lengths: list[int]
    """Of the big buffers in the body, in bytes: see `pickle_pieces`."""


class CallStream(Head, tag=2):
    """As Call, of a function that returns an iterable."""

    number: int
    size: int
    lengths: list[int]


class Answer(Head, Generic[M], tag=3):
    """The server's answer to a Question of the job that runs."""

    meta: M


JobHead = RunProgram[Any] | Call | CallStream


def job_decoder(meta: Any) -> Callable[[bytes], JobHead]:
    """A function that decodes the head of a frame to a worker. `meta`: the type of its RunProgram.meta."""
    return msgspec.msgpack.Decoder(RunProgram[meta] | Call | CallStream).decode


def answer_decoder(meta: Any) -> Callable[[bytes], Answer[Any]]:
    """A function that decodes the head of an Answer. `meta`: its type."""
    return msgspec.msgpack.Decoder(Answer[meta]).decode


# From a worker, or from the forkserver


class Ready(Head, tag=0):
    """The sender has started."""

    warnings: str = ""
    """Lines about the program that the forkserver has loaded."""


class StartFailed(Head, tag=1):
    """The sender cannot start, and ends."""

    traceback: str


class Result(Head, Generic[M], tag=2):
    """The result of a RunProgram."""

    number: int
    meta: M
    size: int = 0
    memory: int = 0
    """Bytes that the worker holds; 0 if the pool has no `max_memory`."""


class Pickled(Head, tag=3):
    """The result of a Call."""

    number: int
    lengths: list[int]
    size: int = 0
    memory: int = 0


class JobError(Head, tag=4):
    """The job has raised an exception; for function calls the body is its pickle."""

    number: int
    error: ErrorText
    poisoned: bool = False
    """The worker must not take another job."""
    memory: int = 0


class StreamBegin(Head, Generic[M], tag=5):
    """The result of the job is a stream."""

    number: int
    meta: M


class Chunk(Head, tag=6):
    """A piece of a stream: the body."""

    number: int


class StreamEnd(Head, tag=7):
    """The end of a stream, and of its job."""

    number: int
    memory: int = 0


class BodyInUse(Head, tag=8):
    """Precedes the end of a job that still refers to its body: the server does not use the body's arena again."""

    number: int


class LogRecord(Head, tag=9):
    """A log record: worker_logs.LogFields. An invalid one is not worth a worker, so it is checked later."""

    fields: Any


class Question(Head, Generic[M], tag=11):
    """A job asks the server for something, and waits for the Answer."""

    number: int
    meta: M


class Report(Head, tag=12):
    """Something that the program reports beside the results of its jobs; the program's user checks it, as for logs."""

    fields: Any


class WorkerEnd(Head, tag=10):
    """A worker has ended, or could not be forked."""

    number: int
    exit_code: int | None
    """None if it could not even be forked."""
    text: str = ""
    """Why not."""
    peak: int = 0
    """The most memory that it held, in bytes."""
    out_of_memory: bool | None = None
    """Whether the kernel ran out of memory; None if unknown."""
    killed: bool = False
    """Whether the server has killed it."""


class WorkerStart(Head, tag=13):
    """A worker has been forked."""

    number: int
    pid: int


JobEnd = Result[Any] | Pickled | JobError | StreamEnd
"""The frames that end a job."""

PartOfJob = StreamBegin[Any] | Chunk | StreamEnd | BodyInUse | JobError | Question[Any]
"""The frames about a job without its result."""

FromWorker = Ready | StartFailed | JobEnd | StreamBegin[Any] | Chunk | BodyInUse | LogRecord | Report | Question[Any]
FromForkserver = Ready | StartFailed | WorkerStart | WorkerEnd


def worker_decoder(meta: Any, question: Any = Any) -> Callable[[bytes], FromWorker]:
    """A function that decodes the head of a frame from a worker. The types are those of the metas of a result and of a
    question.
    """
    kinds = Ready | StartFailed | Result[meta] | Pickled | JobError | StreamBegin[meta] | Chunk | StreamEnd
    return msgspec.msgpack.Decoder(kinds | BodyInUse | LogRecord | Report | Question[question]).decode


decode_from_forkserver = msgspec.msgpack.Decoder(FromForkserver).decode

COMMAND = struct.Struct("!cI")
"""A command for the forkserver: an operation and a worker's number."""

FORK, KILL, KILL_WITH_STACK, WRITE_STACKS = b"f", b"k", b"l", b"s"

FORK_DESCRIPTORS = 4
"""Descriptors that travel with FORK, at most: the worker's socket, an arena for its first big result, its crash file,
and the file of its SharedMemory, if the pool has that.
"""

encode = msgspec.msgpack.Encoder().encode


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
