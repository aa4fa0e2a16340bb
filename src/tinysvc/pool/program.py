"""Programs: what the workers of a pool run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from msgspec import Struct


class Reply(Struct, gc=False):  # made for each job, and sooner than a NamedTuple
    """The result of a job: a small value that MessagePack can carry, and bytes or an iterator of bytes."""

    meta: Any
    body: bytes | bytearray | memoryview | Iterator[bytes]


JobFunction = Callable[[Any, bytes | memoryview], Reply]
"""Runs one job from its meta and its body. A body of BIG bytes or more is a memoryview."""

Program = Callable[[], AbstractContextManager[JobFunction]]
"""A picklable function. Each worker opens it before it is ready, and closes it before it exits.

A program may have a method `preload()` that returns a context manager. The forkserver enters it before it forks the
first worker: all workers share what it opens.
"""


class SharedMemory(NamedTuple):
    """A file in memory for each worker that the server maps, too: what a worker writes there outlives it."""

    size: int
    """In bytes. Pages without content take no memory."""
    in_forkserver: Callable[[], Callable[[int], object]]
    """Picklable. The forkserver calls it before the author's modules load. It returns the function that each new worker
    calls, with the descriptor of its file; the function closes it."""
    in_server: Callable[[int], Callable[[], object]]
    """The server calls it for each new worker, with a descriptor that is valid during the call. It returns the function
    to call when the worker has ended."""


class WorkerOptions(NamedTuple):
    """Options of a pool that its workers need."""

    log_level: int
    max_result_size: int  # bytes
    measures_memory: bool
    memory_limit: int  # bytes of address space; 0: no limit
    mark: int  # of the pool's processes: see descendants.py
    inherited: tuple[int, ...] = ()  # further descriptors that the forkserver and the workers hold
    share: Callable[[], Callable[[int], object]] | None = None  # of SharedMemory


@contextmanager
def function_program(
    initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[JobFunction]:
    """The program of a pool that only calls functions, by `run`, `stream`, `submit` and `map`."""
    if initializer is not None:
        initializer(*initargs)

    def run_job(meta: Any, body: bytes | memoryview) -> Reply:
        raise TypeError("this pool was made without a program; use run() or submit()")

    yield run_job


def call_each(function: Callable[..., Any], chunk: Sequence[Sequence[Any]]) -> list[Any]:
    """Run one chunk of `map`: call `function` with each tuple of arguments."""
    return [function(*arguments) for arguments in chunk]
