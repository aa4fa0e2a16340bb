"""What happens in a worker is visible: its log records, its prints, and what it died of.

    in the worker                                                      in the server
    logging ──> forward_logs ──> a LOG frame ───────────────────────> log_record ──> the server's own loggers
    print   ──> whole_lines ───> the standard streams it shares with the server
    crash   ──> watch_crashes ─> the Python stack, in an arena ─────> manner_of_death
                                 exit status, memory (forkserver) ──┘

Nothing that a worker tells is believed, for a job may have got hold of it: types are checked, lengths cut, no name of
its choosing makes a logger, and no text of its choosing can begin a line of the log.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import re
import signal
import sys
from _thread import get_ident, start_new_thread
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import struct_rusage
from select import PIPE_BUF
from time import monotonic, sleep, time
from typing import Any, NamedTuple

import msgspec

from ..core.request_context import request_id, route_name
from ..core.tracebacks import INDENT, indented

STACK_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
"""The signal that makes a worker write its Python stack and end; whatever it is stuck in, C code or a lock."""

OLD_TEXT = 0.1
"""Seconds after which an unfinished line is written; it may take twice as long."""

LOG_RATE = 1000
"""Log records that a worker sends in a second. The rest is counted and dropped: a loop that logs must not hold the
server's event loop, which needs about 50 us for each."""

MAX_LOG_TEXT = 16 * 1024
"""Characters of a log message, and of its traceback, that travel."""

MAX_LOG_NAME = 1000
"""Characters of what stands in one line of a log record: the names of logger, file, function, thread and route."""

MAX_CLOCK_SKEW = 3600.0
"""Seconds that the time of a worker's log record may differ from ours; it has the same clock. Beyond, ours counts."""

MAX_LINE = 64 * 1024
"""Bytes of an unfinished line that are kept for their newline: what a pipe takes in one write, if it is empty."""

OOM_GRACE = 1.0
"""Seconds after an out-of-memory kill in which another SIGKILL is taken for one: the kernel may kill several."""

at_end_of_job: set[Callable[[], object]] = set()
"""In a worker: calls that the job at hand has made necessary at its end. Most jobs make none."""

log = logging.getLogger("tinysvc.worker")


class LogFields(NamedTuple):
    """A log record as it travels."""

    name: str
    level: int
    message: str
    exception: str
    created: float
    pathname: str
    lineno: int
    function: str
    thread: str
    process: int
    request_id: str
    route: str


# In a worker: logging


def forward_logs(send: Callable[[list[Any]], None], level: int) -> None:
    """From now on the log records of this process go to `send`, as the LogFields of each; to stderr where it raises
    OSError.

    The handlers that the author's modules have installed as they were imported are taken away: the server has imported
    the same modules and handles each record with the same handlers, once. (Kept here, they would write each line twice,
    and all workers would rotate one file.) What the author installs later, in a resource say, stays.
    """
    forwarder = _Forwarder(send)
    root = logging.getLogger()
    for logger in [root, *root.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            inherited, logger.handlers = logger.handlers, []
            forwarder.replaced += inherited
            if logger is root or (inherited and not logger.propagate):
                logger.addHandler(forwarder)
    root.setLevel(level)


class _Forwarder(logging.Handler):
    def __init__(self, send: Callable[[list[Any]], None]) -> None:
        super().__init__()
        self.replaced: list[logging.Handler] = []  # kept, for their files would warn that nobody has closed them
        self._send = send
        self._stderr = logging.StreamHandler()
        self._stderr.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._second = 0
        self._count = 0  # records in that second

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._admits(int(monotonic())):
                self._send(list(_fields(record)))
        except OSError:  # the server does not listen any more, or we are in a forked child
            self._stderr.handle(record)
        except Exception:
            self.handleError(record)  # as every handler does: a traceback on stderr, nothing for who has logged

    def _admits(self, second: int) -> bool:
        if second != self._second:
            self.tell_dropped()
            self._second, self._count = second, 0
        self._count += 1
        if self._count > LOG_RATE:
            at_end_of_job.add(self.tell_dropped)
        return self._count <= LOG_RATE

    def tell_dropped(self) -> None:
        """Report how many records were dropped: at the end of the job, or in the next second."""
        dropped = self._count - LOG_RATE
        if dropped > 0:
            self._count = LOG_RATE
            text = f"{dropped} log records of this worker were dropped: it may send {LOG_RATE} in a second"
            self._send(list(_fields(logging.LogRecord(log.name, logging.WARNING, "", 0, text, None, None))))


def _fields(record: logging.LogRecord) -> LogFields:
    return LogFields(
        name=_utf8(record.name),
        level=record.levelno,
        message=_utf8(_cut(record.getMessage())),
        exception=_utf8(_exception(record)[-MAX_LOG_TEXT:]),
        created=record.created,
        pathname=_utf8(record.pathname),
        lineno=record.lineno,
        function=_utf8(record.funcName or ""),
        thread=_utf8(record.threadName or ""),
        process=record.process or 0,
        request_id=request_id.get(),
        route=route_name.get(),
    )


def _exception(record: logging.LogRecord) -> str:
    """The tracebacks that belong to a record, as a formatter would append them."""
    exception = record.exc_text or ""
    if record.exc_info and not exception:
        exception = logging.Formatter().formatException(record.exc_info)
    return "\n".join(filter(None, (exception, record.stack_info)))


def _cut(text: str) -> str:
    if len(text) <= MAX_LOG_TEXT:
        return text
    note = f"... ({len(text)} characters)"
    return text[: MAX_LOG_TEXT - len(note)] + note


def _utf8(text: str) -> str:
    """Of any text, what MessagePack can carry."""
    return text.encode(errors="backslashreplace").decode()


# In a worker: the standard streams


def whole_lines() -> None:
    """From now on sys.stdout and sys.stderr write whole lines, so that those of several workers do not mix.

    A stream that was closed, or that the author has replaced by one of his own, stays as it is. Where stdout is a pipe
    that nobody reads, a print waits, as in every program: the job's deadline ends that.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            lines = WholeLines(descriptor, f"<{name}>")
            setattr(sys, name, io.TextIOWrapper(lines, "utf-8", "backslashreplace", write_through=True))


class WholeLines(io.BufferedIOBase):
    """A binary stream that writes whole lines, as many at a time as a pipe takes without mixing them with others'.

    What cannot be written is dropped, and the number of lines told when writing works again: no print fails a job.
    A carriage return ends a line, too. An unfinished line is written when it is flushed, when its job ends, and when it
    is OLD_TEXT old, which a thread watches: progress is seen while it is made.
    Closing it does nothing but flush: the next job prints too.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor
        # Thread -> its unfinished line, and when that began; with no lock that a fork could break.
        self._kept: dict[int, tuple[float, bytes]] = {}
        self._watched_in = 0  # the process that has a thread for them
        self._lost = 0

    def write(self, data: Any) -> int:
        thread, new = get_ident(), memoryview(data).tobytes()
        since, old = self._kept.pop(thread, (0.0, b""))
        whole = old + new
        end = max(whole.rfind(mark, len(old)) for mark in (b"\n", b"\r")) + 1
        if len(whole) - end > MAX_LINE:
            end = len(whole)
        if end < len(whole):
            self._kept[thread] = monotonic() if end or not old else since, whole[end:]
            at_end_of_job.add(self.flush)
            self._watch()
        self._put(whole[:end])
        return len(new)

    def _watch(self) -> None:
        if self._kept and self._watched_in != os.getpid():
            self._watched_in = os.getpid()
            try:
                start_new_thread(self._write_late, ())
            except RuntimeError:  # no more threads are allowed: it is written at the end of the job
                self._watched_in = 0

    def _write_late(self) -> None:
        while self._kept:
            sleep(OLD_TEXT)
            for thread, (since, _) in list(self._kept.items()):
                if monotonic() - since >= OLD_TEXT:
                    self._flush(thread)
        self._watched_in = 0
        self._watch()  # text may have been kept in between

    def flush(self) -> None:
        for thread in list(self._kept):
            self._flush(thread)

    def _flush(self, thread: int) -> None:
        self._put(self._kept.pop(thread, (0.0, b""))[1])

    def close(self) -> None:
        self.flush()

    def _put(self, lines: bytes) -> None:
        for piece in _pieces(lines):
            if self._lost and self._written(b"(%d lines of a worker could not be written here)\n" % self._lost):
                self._lost = 0
            if not self._written(piece):
                self._lost += max(1, piece.count(b"\n"))

    def _written(self, piece: bytes) -> bool:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # closed, nobody reads any more, full and not to be waited for, no space: all the same to a job
            return False
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True


def _pieces(lines: bytes) -> Iterator[bytes]:
    """Whole lines, together at most PIPE_BUF long, which a pipe takes in one piece; a longer line alone."""
    start = 0
    while start < len(lines):
        end = lines.rfind(b"\n", start, start + PIPE_BUF) + 1 or lines.find(b"\n", start) + 1 or len(lines)
        yield lines[start:end]
        start = end


# In a worker: crashes


_last_words = -1


def watch_crashes(descriptor: int) -> None:
    """When this process crashes, its Python stack is written to `descriptor`: an empty file that is this worker's own,
    for `manner_of_death`."""
    global _last_words
    _last_words = descriptor
    faulthandler.enable(descriptor, all_threads=False)
    faulthandler.register(STACK_SIGNAL, descriptor, all_threads=False, chain=True)  # then the signal ends the process


def watch_crashes_again() -> None:
    """After a job has given handlers of its own to these signals."""
    faulthandler.disable()
    faulthandler.unregister(STACK_SIGNAL)
    watch_crashes(_last_words)


# In the server: log records


def log_record(worker: int, pool: str, fields: Any) -> None:
    """Hand what `forward_logs` has sent to the logger of that name. It never raises, whatever came.

    The record has the attributes worker, pool, request_id and route; its message shows them too.
    """
    try:
        told = msgspec.convert(fields, LogFields)
    except msgspec.ValidationError as error:
        log.warning("%s sent what is no log record: %s", _worker(worker, pool), error)
        return
    logger = _logger(told.name)
    level = min(max(told.level, 1), logging.CRITICAL)  # a logger remembers each level it is asked about
    if logger.isEnabledFor(level):
        try:
            logger.handle(_record(logger, level, worker, pool, told))
        except Exception:  # in a filter or a record factory of the author's: nobody who logs is here to be told
            plain = logging.LogRecord(told.name, level, "", 0, told.message[:MAX_LOG_TEXT], (), None)
            logging.NullHandler().handleError(plain)


def _logger(name: str) -> logging.Logger:
    """The logger of that name, or the nearest above it that exists; new ones would stay for ever."""
    root = logging.getLogger()
    name = name[:MAX_LOG_NAME]
    while name:
        found = root.manager.loggerDict.get(name)
        if isinstance(found, logging.Logger):
            return found
        name = name.rpartition(".")[0]
    return root


def _record(logger: logging.Logger, level: int, worker: int, pool: str, told: LogFields) -> logging.LogRecord:
    name, path, function, route = map(one_line, (told.name, told.pathname, told.function, told.route))
    extra = {"worker": worker, "pool": pool, "request_id": one_line(told.request_id), "route": route}
    first, newline, more = indented(_cut(told.message)).partition("\n")
    where = [_worker(worker, pool)]
    if route:
        where.append(route)
    if extra["request_id"]:
        where.append(f"request {extra['request_id']}")
    message = f"{first} [{', '.join(where)}]{newline}{more}"
    record = logger.makeRecord(name, level, path, told.lineno, message, (), None, function)
    vars(record).update(extra)  # as `extra=` it would raise where a record factory has set a request_id of its own
    record.exc_text = INDENT + indented(told.exception[-MAX_LOG_TEXT:]) if told.exception else None
    record.threadName, record.process, record.processName = one_line(told.thread), told.process, where[0]
    if abs(told.created - time()) < MAX_CLOCK_SKEW:  # not so for what is not a number
        record.created, record.msecs = told.created, told.created % 1 * 1000 // 1
    return record


def _worker(number: int, pool: str) -> str:
    from ..core.settings import DEFAULT_POOL  # which workers need not load

    return f"worker {number}" if pool == DEFAULT_POOL else f"worker {number} of the pool {pool}"


def one_line(text: str) -> str:
    """Text for the middle of a line."""
    text = text[:MAX_LOG_NAME]
    return text if text.isprintable() else text.encode("unicode_escape").decode()


# In the server: what a worker died of


def manner_of_death(exit_code: int | None, why: str, *, out_of_memory: bool | None, peak: int, stack: str) -> str:
    """How a worker ended, for the log: "was killed by SIGSEGV; peak memory 41 MiB; ..." and the Python stack.

    `why` says for what the pool has killed it, `out_of_memory` whether the kernel then had to kill somebody (None: it
    does not tell), `peak` the most memory it held, in bytes; `stack` is what `watch_crashes` has written.
    """
    report = [_ending(exit_code, why, out_of_memory)]
    if peak:
        report.append(f"peak memory {peak / 2**20:.0f} MiB")
    frames = _authors_frames(stack) if exit_code in _CRASHES or why else []
    if frames:
        report.append("\n".join(["Python stack, last call first:", *frames]))
    return "; ".join(report)


_CRASHES = {-number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)}
"""Exit codes with which faulthandler has written something. Behind others, a stack is that of a forked child."""

_OUT_OF_MEMORY = {True: ", likely out of memory", False: " from outside the pool", None: ", perhaps out of memory"}


def _ending(exit_code: int | None, why: str, out_of_memory: bool | None) -> str:
    if why:
        return f"was killed: it {why}"
    if exit_code is None:
        return "was ended"
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    if exit_code == -signal.SIGKILL:
        return f"was killed by SIGKILL{_OUT_OF_MEMORY[out_of_memory]}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was killed by {names.get(-exit_code, f'signal {-exit_code}')}"


_OURS = tuple(
    f'  File "{start}'.encode("ascii", "backslashreplace").decode()  # as faulthandler writes it
    for start in (f"{Path(__file__).parents[1]}/", "<string>")  # the forkserver is started with `python -c`
)


def _authors_frames(stack: str) -> list[str]:
    """The frames of the last stack in faulthandler's text, without ours where one is the author's."""
    stack = stack.rpartition("Fatal Python error")[2].rpartition("Stack (most recent call first):")[2]
    lines = stack.splitlines()
    frames = [one_line(line) for line in lines if line.startswith('  File "')]
    return [frame for frame in frames if not frame.startswith(_OURS)] or frames


# In the forkserver


def peak_bytes(usage: struct_rusage) -> int:
    """The most memory that an ended process has held, from what os.wait4 says of it."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class OomCounter:
    """The kernel's count of processes killed for want of memory: of our cgroup, or else of the whole machine.

        cgroup v2   memory.events         "oom_kill 3": processes of the cgroup, and of those below it,
        cgroup v1   memory.oom_control    that were killed for its limit, a parent's, or the machine's
        neither     /proc/vmstat          processes of the machine

    `root` is where /proc and /sys stand.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._file = next((file for file in _oom_files(root) if _oom_kills(file) is not None), None)
        self._kills = self._count()
        self._grown = -OOM_GRACE

    def _count(self) -> int | None:
        return None if self._file is None else _oom_kills(self._file)

    def grew(self) -> bool | None:
        """Whether it grew since the last call, or within OOM_GRACE before it; None where there is no such counter."""
        before, self._kills = self._kills, self._count()
        if before is None or self._kills is None:
            return None
        now = monotonic()
        if self._kills > before:
            self._grown = now
        return now - self._grown < OOM_GRACE


def _oom_files(root: Path) -> Iterator[Path]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.oom_control"
        else:
            continue
        yield mount / path.strip("/") / name
        yield mount / name  # a container may see its own cgroup here, whatever its path says
    yield root / "proc/vmstat"


def _oom_kills(file: Path) -> int | None:
    found = re.search(r"^oom_kill (\d+)$", _read(file), re.MULTILINE)
    return int(found[1]) if found else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
