"""telling.py: logs, prints and crashes of a worker, as they are sent, as they arrive, and with a pool between."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from select import PIPE_BUF
from typing import Any

import msgspec
import pytest

import log_jobs
from paths import SUPPORT
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import WorkerDied
from tinysvc.core.request_context import request_id, route_name
from tinysvc.pool import worker_logs as telling
from tinysvc.pool.arena import Arena
from tinysvc.pool.worker_logs import (
    LOG_RATE,
    MAX_LINE,
    MAX_LOG_TEXT,
    LogFields,
    OomCounter,
    WholeLines,
    log_record,
    manner_of_death,
    peak_bytes,
)


def process(call: str, **options: Any) -> subprocess.Popen[str]:
    """A process of its own that calls a function of log_jobs."""
    code = f"import log_jobs; log_jobs.{call}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=SUPPORT, text=True, **options)


def run(call: str, **options: Any) -> tuple[str, str]:
    """What such a process writes to stdout and stderr."""
    with process(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as child:
        written = child.communicate()
    assert child.returncode == 0, written
    return written


# Records, as a worker sends them


@pytest.fixture
def sent() -> list[LogFields]:
    return []


@pytest.fixture
def logger(sent: list[LogFields]) -> logging.Logger:
    """A logger nobody else knows, whose records go to `sent` as they would travel."""

    def send(fields: list[Any]) -> None:
        sent.append(msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=LogFields))

    logger = logging.Logger("shop.model")
    logger.addHandler(telling._Forwarder(send))
    return logger


def test_a_record_travels_with_its_place_and_its_job(logger: logging.Logger, sent: list[LogFields]) -> None:
    for variable in (request_id, route_name):
        variable.set("")  # another test may have left something here
    tokens = request_id.set("5f-1"), route_name.set("POST /predict")
    logger.warning("slow row %d", 3)
    request_id.reset(tokens[0])
    route_name.reset(tokens[1])
    logger.info("later")
    first, second = sent
    assert first[:4] == ("shop.model", logging.WARNING, "slow row 3", "")
    assert (first.request_id, first.route) == ("5f-1", "POST /predict")
    assert (first.pathname, first.function) == (__file__, "test_a_record_travels_with_its_place_and_its_job")
    assert (first.thread, first.process) == ("MainThread", os.getpid())
    assert (second.request_id, second.route, second.lineno - first.lineno) == ("", "", 3)


def test_tracebacks_and_stacks_travel_as_text(logger: logging.Logger, sent: list[LogFields]) -> None:
    try:
        raise LookupError("no such row")
    except LookupError:
        logger.exception("failed", stack_info=True)
    assert sent[0].exception.startswith("Traceback (most recent call last):\n")
    assert "LookupError: no such row\nStack (most recent call last):\n" in sent[0].exception


def test_any_text_can_travel_but_not_at_any_length(logger: logging.Logger, sent: list[LogFields]) -> None:
    logger.error("\udcff%s", "x" * 1_000_000)
    try:
        raise LookupError("y" * 1_000_000 + "the end")
    except LookupError:
        logger.exception("\ud800")
    assert sent[0].message.startswith("\\udcffxxx")
    assert sent[0].message.endswith("x... (1000001 characters)")
    assert len(sent[1].exception) == MAX_LOG_TEXT
    assert sent[1].exception.endswith("the end")


class NoText:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("arguments", [("%d", "three"), ("%s %s", 1), ("%s", NoText()), (NoText(),)])
def test_a_message_that_cannot_be_formatted_is_told_on_stderr(
    logger: logging.Logger, sent: list[LogFields], capsys: pytest.CaptureFixture[str], arguments: tuple[Any, ...]
) -> None:
    logger.error(*arguments)
    logger.error("the next")
    assert "--- Logging error ---" in capsys.readouterr().err
    assert [fields.message for fields in sent] == ["the next"]


def test_where_the_channel_is_closed_records_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def send(fields: list[Any]) -> None:
        raise BrokenPipeError

    logger = logging.Logger("shop")
    logger.addHandler(telling._Forwarder(send))
    logger.info("closing %s", "resources")
    assert capsys.readouterr().err == "INFO shop: closing resources\n"


def test_a_channel_that_fails_does_not_reach_who_logs(capsys: pytest.CaptureFixture[str]) -> None:
    def send(fields: list[Any]) -> None:
        raise ValueError("not a channel")

    logger = logging.Logger("shop")
    logger.addHandler(telling._Forwarder(send))
    logger.error("lost")
    assert "ValueError: not a channel" in capsys.readouterr().err


def test_a_storm_is_bounded_and_what_it_cost_is_told(
    logger: logging.Logger, sent: list[LogFields], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "monotonic", lambda: 100.0)
    for number in range(5 * LOG_RATE):
        logger.info("row %d", number)
    assert [fields.message for fields in sent] == [f"row {number}" for number in range(LOG_RATE)]
    monkeypatch.setattr(telling, "monotonic", lambda: 101.0)
    logger.info("after")
    logger.info("and on")
    notice, *after = sent[LOG_RATE:]
    assert (notice.name, notice.level) == ("tinysvc.worker", logging.WARNING)
    assert notice.message.startswith(f"{4 * LOG_RATE} log records of this worker were dropped")
    assert [fields.message for fields in after] == ["after", "and on"]


def test_every_record_is_forwarded_once_and_written_by_nobody_else(tmp_path: Path) -> None:
    out, err = run(f"forward_like_a_worker({str(tmp_path)!r})", env={**os.environ, "PYTHONDEVMODE": "1"})
    assert out == "['root', 'loud', 'apart', 'loud.below']\n"
    assert err == ""
    assert (tmp_path / "log").read_text() == ""


# Records, as the server takes them


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the loggers `shop` and `tinysvc.pool.worker`, and the root above others, write in the usual format."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    logging.getLogger("shop")
    root.addHandler(handler)
    yield written
    root.removeHandler(handler)


FIELDS = LogFields(
    "shop", 30, "slow row", "", 0.0, "/srv/shop.py", 12, "predict", "MainThread", 7, "5f-1", "POST /predict"
)


def changed(**field: Any) -> list[Any]:
    return [field.get(name, value) for name, value in zip(FIELDS._fields, FIELDS, strict=True)]


def test_a_record_says_where_it_comes_from(lines: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    log_record(3, "default", changed(name="shop.model"))
    log_record(3, "training", changed(request_id="", route=""))
    assert lines.getvalue().splitlines() == [
        "WARNING shop.model: slow row [worker 3, POST /predict, request 5f-1]",
        "WARNING shop: slow row [worker 3 of the pool training]",
    ]
    record = caplog.records[0]
    told = {name: getattr(record, name) for name in ("worker", "pool", "request_id", "route")}
    assert told == {"worker": 3, "pool": "default", "request_id": "5f-1", "route": "POST /predict"}
    assert (record.filename, record.lineno, record.funcName, record.process) == ("shop.py", 12, "predict", 7)


def test_a_record_keeps_its_time_if_it_can_be_true(caplog: pytest.LogCaptureFixture) -> None:
    log_record(3, "default", changed())
    now = caplog.records[0].created
    assert now > 1e9
    for created in (now - 1.75, float("nan"), float("inf"), 1e300):
        log_record(3, "default", changed(created=created))
    _, true, *others = caplog.records
    assert true.created == now - 1.75
    assert 0 <= true.msecs < 1000
    assert all(abs(record.created - now) < 60 for record in others)


def test_a_traceback_follows_its_record(lines: io.StringIO) -> None:
    log_record(3, "default", changed(message="two\nlines", exception="Traceback:\nLookupError: x"))
    assert lines.getvalue().splitlines()[1:] == ["    lines", "    Traceback:", "    LookupError: x"]


FORGED = ["\nERROR tinysvc: forged", "\rERROR", "\x1b[1A", "\x85ERROR", "\u2028ERROR", "\x0bERROR", "\0"]


@pytest.mark.parametrize("text", FORGED)
@pytest.mark.parametrize(
    "field", ["name", "message", "exception", "pathname", "function", "thread", "request_id", "route"]
)
def test_no_field_can_forge_a_line(lines: io.StringIO, field: str, text: str) -> None:
    formatter = logging.getLogger().handlers[-1].formatter
    assert formatter is not None
    formatter._style._fmt = "%(levelname)s %(name)s %(pathname)s %(funcName)s %(threadName)s: %(message)s"
    log_record(3, "default", changed(**{field: f"shop{text}"}))
    first, *more = lines.getvalue().rstrip("\n").splitlines()
    assert first.startswith("WARNING shop")
    assert all(line.startswith("    ") for line in more)
    assert first.isprintable()
    assert all(line.isprintable() for line in more)


HOSTILE: list[Any] = [
    None,
    7,
    "text",
    b"bytes",
    {},
    [],
    [[]] * 12,
    list(FIELDS)[:-1],
    [*FIELDS, "one more"],
    changed(name=None),
    changed(name=b"shop"),
    changed(level="WARNING"),
    changed(level=1.5),
    changed(message=["x"]),
    changed(created="now"),
    changed(lineno=None),
    changed(request_id={}),
]


@pytest.mark.parametrize("fields", HOSTILE, ids=repr)
def test_what_is_no_record_is_told_as_that(lines: io.StringIO, fields: Any) -> None:
    log_record(3, "default", fields)
    (line,) = lines.getvalue().splitlines()
    assert line.startswith("WARNING tinysvc.worker: worker 3 sent what is no log record: ")


def test_extreme_values_are_cut(lines: io.StringIO) -> None:
    log_record(3, "default", changed(level=2**63, lineno=-(2**63), message="x" * 1_000_000, route="y" * 1_000_000))
    log_record(3, "default", changed(level=-5, message="not wanted"))
    (line,) = lines.getvalue().splitlines()
    assert line.startswith("CRITICAL shop: xxx")
    assert len(line) < MAX_LOG_TEXT + 2000


def test_a_worker_makes_no_loggers(lines: io.StringIO) -> None:
    root = logging.getLogger()
    before = set(root.manager.loggerDict)
    for number in range(2000):
        log_record(3, "default", changed(name=f"made.up.{number}", level=number))
    for name in ("", "root", ".", "...", "a" * 100_000, "." * 100_000):
        log_record(3, "default", changed(name=name))
    assert set(root.manager.loggerDict) == before
    assert len(vars(root)["_cache"]) <= logging.CRITICAL
    assert "WARNING made.up.30: slow row" in lines.getvalue()


def test_the_levels_of_the_server_count(lines: io.StringIO) -> None:
    shop = logging.getLogger("shop")
    shop.setLevel(logging.ERROR)
    try:
        log_record(3, "default", changed(name="shop.model"))
        log_record(3, "default", changed(name="shop.model", level=logging.ERROR, message="shown"))
    finally:
        shop.setLevel(logging.NOTSET)
    assert [line.partition(" [")[0] for line in lines.getvalue().splitlines()] == ["ERROR shop.model: shown"]


def test_a_filter_that_fails_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(record: logging.LogRecord) -> bool:
        raise RuntimeError("in a filter")

    shop = logging.getLogger("shop")
    shop.addFilter(failing)
    try:
        log_record(3, "default", changed())
    finally:
        shop.removeFilter(failing)
    assert "RuntimeError: in a filter" in capsys.readouterr().err


# Whole lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it


def read(end: int) -> bytes:
    """All that is in a pipe."""
    pieces = []
    try:
        while piece := os.read(end, 65536):
            pieces.append(piece)
    except BlockingIOError:
        pass
    return b"".join(pieces)


@pytest.fixture
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is written because this machine was slow."""
    monkeypatch.setattr(telling, "start_new_thread", lambda *_: None)


def test_a_line_waits_for_its_newline_or_a_flush(in_time: None, pipe: tuple[int, int]) -> None:
    lines = WholeLines(pipe[1], "<stdout>")
    assert lines.write(b"one") == 3
    assert read(pipe[0]) == b""
    lines.write(memoryview(b"\ntwo\nthr"))
    assert read(pipe[0]) == b"one\ntwo\n"
    lines.flush()
    assert read(pipe[0]) == b"thr"
    lines.flush()
    assert read(pipe[0]) == b""


def test_a_line_without_end_is_not_kept_for_ever(in_time: None, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        lines = WholeLines(file.fileno(), "<stdout>")
        count = 0
        while not os.fstat(file.fileno()).st_size:
            count += lines.write(b"x" * 1000)
        lines.flush()
    assert MAX_LINE < count <= MAX_LINE + 1000
    assert (tmp_path / "out").stat().st_size == count


def test_each_thread_has_its_line(in_time: None, pipe: tuple[int, int]) -> None:
    lines = WholeLines(pipe[1], "<stdout>")
    lines.write(b"mine ")
    other = threading.Thread(target=lines.write, args=(b"other\n",))
    other.start()
    other.join()
    lines.write(b"too\n")
    unfinished = threading.Thread(target=lines.write, args=(b"unfinished",))
    unfinished.start()
    unfinished.join()
    lines.flush()
    assert read(pipe[0]) == b"other\nmine too\nunfinished"


def test_lines_go_in_writes_that_a_pipe_does_not_mix() -> None:
    lines = b"".join(b"%d\n" % number for number in range(5000)) + b"x" * 3 * PIPE_BUF + b"\nrest"
    pieces = list(telling._pieces(lines))
    assert b"".join(pieces) == lines
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert [len(piece) > PIPE_BUF for piece in pieces] == [False] * (len(pieces) - 2) + [True, False]
    assert len(pieces) < len(lines) // PIPE_BUF + 5


def test_a_reader_that_has_gone_is_nobodys_error(pipe: tuple[int, int]) -> None:
    lines = WholeLines(pipe[1], "<stdout>")
    os.close(pipe[0])
    assert lines.write(b"to nobody\n") == 10
    os.close(pipe[1])
    assert lines.write(b"to nobody\n") == 10
    assert not lines.isatty()
    lines.close()
    assert not lines.closed


def test_a_full_pipe_that_is_not_waited_for_loses_lines_and_says_how_many(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    lines = WholeLines(pipe[1], "<stdout>")
    for _ in range(1000):
        lines.write(b"x" * 1000 + b"\n")
    kept = read(pipe[0]).count(b"\n")
    assert 0 < kept < 1000
    lines.write(b"after\n")
    assert read(pipe[0]) == b"(%d lines of a worker could not be written here)\nafter\n" % (1000 - kept)


def test_lines_of_four_processes_do_not_mix(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], True)
    children = [process(f"print_lines({name!r}, '200')", stdout=pipe[1]) for name in "abcd"]
    os.close(pipe[1])
    with open(pipe[0], closefd=False) as reader:
        lines = reader.read().splitlines()
    assert [child.wait() for child in children] == [0] * 4
    expected = [f"{name} {number} {'x' * (number * 19 % 3000)} end" for name in "abcd" for number in range(200)]
    assert sorted(lines) == sorted(expected)


def test_the_streams_of_a_worker_are_like_others() -> None:
    code = (
        "import sys; from tinysvc.pool.worker_logs import whole_lines; whole_lines(); "
        "sys.stdout.buffer.write(b'bytes\\n'); print('caf\\u00e9', '\\udcff'); sys.stderr.write('error\\n'); "
        "print(sys.stdout.encoding, sys.stdout.errors, sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.name); "
        "sys.stdout.reconfigure(line_buffering=True); print('end', end='', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={"LC_ALL": "C"})
    assert done.stdout.decode() == "bytes\ncafé \\udcff\nutf-8 backslashreplace 1 2 <stdout>\nend"
    assert done.stderr == b"error\n"


def test_a_closed_descriptor_fails_no_print() -> None:
    assert run("print_to_closed_descriptors()") == ("", "still here\n")


def test_a_stream_that_is_not_ours_to_replace_stays() -> None:
    assert run("keep_other_streams()") == ("kept\n", "")


# Deaths


def test_the_python_stack_of_a_crash_is_in_the_arena() -> None:
    arena = Arena()
    out, _ = run(f"crash({arena.descriptor})", pass_fds=[arena.descriptor])
    stack = os.pread(arena.descriptor, 65536, 0).decode()
    arena.close()
    death = manner_of_death(int(out), "", out_of_memory=False, peak=41 << 20, stack=stack)
    first, *frames = death.splitlines()
    assert first == "was killed by SIGSEGV; peak memory 41 MiB; Python stack, last call first:"
    assert [frame.rpartition(" in ")[2] for frame in frames[-3:]] == ["segfault", "predict", "crash"]


OURS = str(Path(telling.__file__).parent / "worker.py")
STACK = f"""Fatal Python error: Aborted

Current thread 0x00007f (most recent call first):
  File "/srv/other.py", line 1 in a_forked_child

Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/srv/shop.py", line 12 in predict
  File "{OURS}", line 400 in do_job
  File "<string>", line 1 in <module>

Current thread's C stack trace (most recent call first):
  Binary file "/usr/bin/python", at _Py_DumpStack+0x31

Extension modules: numpy._core (total: 1)
"""
SHOWN = 'Python stack, last call first:\n  File "/srv/shop.py", line 12 in predict'
DEATHS: list[tuple[int | None, str, bool | None, int, str, str]] = [
    (-11, "", False, 41 << 20, STACK, f"was killed by SIGSEGV; peak memory 41 MiB; {SHOWN}"),
    (-6, "", None, 0, STACK, f"was killed by SIGABRT; {SHOWN}"),
    (-7, "", None, 0, "", "was killed by SIGBUS"),
    (-9, "", True, 0, STACK, "was killed by SIGKILL, likely out of memory"),
    (-9, "", False, 0, "", "was killed by SIGKILL from outside the pool"),
    (-9, "", None, 3 << 30, "", "was killed by SIGKILL, perhaps out of memory; peak memory 3072 MiB"),
    (-9, "sent rubbish", None, 0, "", "was killed: it sent rubbish"),
    (-35, "", None, 0, "", "was killed by signal 35"),
    (-200, "", None, 0, "", "was killed by signal 200"),
    (0, "", None, 1 << 20, "", "exited with status 0; peak memory 1 MiB"),
    (3, "", True, 0, STACK, "exited with status 3"),
    (None, "", None, 0, "", "was ended"),
]


@pytest.mark.parametrize(("exit_code", "why", "out_of_memory", "peak", "stack", "words"), DEATHS)
def test_every_death_has_its_words(
    exit_code: int | None, why: str, out_of_memory: bool | None, peak: int, stack: str, words: str
) -> None:
    assert manner_of_death(exit_code, why, out_of_memory=out_of_memory, peak=peak, stack=stack) == words


def test_a_stack_that_is_all_ours_is_shown_whole() -> None:
    stack = (
        f'Fatal Python error: Aborted\n\n  File "{OURS}", line 1 in receive\n  File "<string>", line 1 in <module>\n'
    )
    assert manner_of_death(-6, "", out_of_memory=None, peak=0, stack=stack).count("\n") == 2


def test_a_stack_cannot_forge_a_line() -> None:
    stack = 'Fatal Python error: x\nERROR tinysvc: forged\n  File "\x1b[1A", line 1 in x\n\xff\xff\n'
    death = manner_of_death(-11, "", out_of_memory=None, peak=0, stack=stack)
    assert death == 'was killed by SIGSEGV; Python stack, last call first:\n  File "\\x1b[1A", line 1 in x'


def test_peak_memory_is_in_bytes() -> None:
    peak = peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
    assert 10 << 20 < peak < 1 << 40


# Out of memory

CGROUPS = {
    "v2": ("0::/app\n", "sys/fs/cgroup/app/memory.events", "low 0\noom 9\noom_kill {}\noom_group_kill 0\n"),
    "v2 in a container": ("0::/docker/5f\n", "sys/fs/cgroup/memory.events", "oom 9\noom_kill {}\n"),
    "v1": ("4:cpu,memory:/a/b\n0::/\n", "sys/fs/cgroup/memory/a/b/memory.oom_control", "under_oom 0\noom_kill {}\n"),
    "neither": ("0::/\n", "proc/vmstat", "pgfault 7\noom_kill {}\nnr_zone 1\n"),
    "no cgroups": ("", "proc/vmstat", "oom_kill {}\n"),
}


@pytest.mark.parametrize("kind", CGROUPS)
def test_the_kernels_count_grows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup, name, text = CGROUPS[kind]
    write(tmp_path / "proc/self/cgroup", cgroup)
    write(tmp_path / "proc/vmstat", "oom_kill 1000\n")
    write(tmp_path / name, text.format(9))
    now = 50.0
    monkeypatch.setattr(telling, "monotonic", lambda: now)
    counter = OomCounter(tmp_path)
    assert counter.grew() is False
    write(tmp_path / name, text.format(10))
    assert counter.grew() is True
    assert counter.grew() is True, "several are killed at once"
    now += telling.OOM_GRACE
    assert counter.grew() is False
    (tmp_path / name).unlink()
    assert counter.grew() is None


def test_no_counter_is_not_known(tmp_path: Path) -> None:
    assert OomCounter(tmp_path).grew() is None
    write(tmp_path / "proc/vmstat", "pgfault 7\n")
    write(tmp_path / "proc/self/cgroup", "rubbish\n::\n0::/../..\n")
    assert OomCounter(tmp_path).grew() is None


@pytest.mark.skipif(sys.platform != "linux", reason="others tell no count")
def test_this_machine_has_a_counter() -> None:
    assert OomCounter().grew() is not None


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


# With a pool between


@pytest.mark.asyncio
async def test_logs_and_prints_of_a_worker_are_visible(
    nothing_left: None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("shop.model")
    async with ProcessPoolExecutor(1) as pool:
        await pool.run(log_jobs.log_and_print, "row")
    slow, failed = (record for record in caplog.records if record.name == "shop.model")
    assert slow.getMessage() == "slow row [worker 1, POST /predict, request 5f-1]"
    assert failed.levelname == "ERROR"
    assert failed.exc_text is not None
    assert failed.exc_text.endswith("ValueError: row")
    out, err = capfd.readouterr()
    assert out == "print row\n"
    assert err == "error row\n"


@pytest.mark.asyncio
async def test_a_crash_is_reported_with_its_stack(nothing_left: None) -> None:
    async with ProcessPoolExecutor(1) as pool:
        with pytest.raises(WorkerDied) as caught:
            await pool.run(log_jobs.predict)
    first, *frames = str(caught.value).splitlines()
    assert "SIGSEGV" in first
    assert " s into the job; peak memory " in first
    assert [frame.rpartition(" in ")[2] for frame in frames][-2:] == ["segfault", "predict"]
    assert caught.value.exitcode == -signal.SIGSEGV


def test_progress_is_seen_while_it_is_made(in_time: None, pipe: tuple[int, int]) -> None:
    lines = WholeLines(pipe[1], "<stdout>")
    lines.write(b"\r1 %")
    lines.write(b"\r2 %")
    assert os.read(pipe[0], 100) == b"\r1 %\r"
    lines.flush()
    assert os.read(pipe[0], 100) == b"2 %"


def test_an_unfinished_line_is_seen_during_silence(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], True)
    lines = WholeLines(pipe[1], "<stdout>")
    lines.write(b"x ")
    assert os.read(pipe[0], 100) == b"x "
    lines.write(b"y ")
    assert os.read(pipe[0], 100) == b"y "


def test_where_no_thread_is_allowed_an_unfinished_line_waits(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(telling, "start_new_thread", refuse)
    lines = WholeLines(pipe[1], "<stdout>")
    lines.write(b"x ")
    while telling.at_end_of_job:
        telling.at_end_of_job.pop()()
    assert read(pipe[0]) == b"x "
    monkeypatch.undo()
    os.set_blocking(pipe[0], True)
    lines.write(b"y ")
    assert os.read(pipe[0], 100) == b"y "


@pytest.mark.asyncio
async def test_a_job_that_is_silent_after_a_print_shows_it(
    nothing_left: None, capfd: pytest.CaptureFixture[str]
) -> None:
    async with ProcessPoolExecutor(1) as pool:
        job = asyncio.ensure_future(pool.run(log_jobs.print_and_wait, "thinking ", timeout=60))
        seen = ""
        while "thinking " not in seen:
            await asyncio.sleep(0.01)
            seen += capfd.readouterr().out
        assert not job.done()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
