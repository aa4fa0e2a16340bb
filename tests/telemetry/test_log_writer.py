"""log_writer.py: a log whose reader stops holds nothing up, and loses lines only when its queue is full."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from tinysvc.telemetry import log_writer
from tinysvc.telemetry.log_writer import LogWriter

PIPE_SIZE = 4096


class Log:
    """A logger that writes into a pipe of one page."""

    def __init__(self, descriptors: tuple[int, int] | None = None, max_queued: int = 10_000) -> None:
        self.reader, self.descriptor = descriptors or os.pipe()
        if stat.S_ISFIFO(os.fstat(self.descriptor).st_mode):
            fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self.writer = LogWriter(self.descriptor, max_queued=max_queued)
        self.writer.setFormatter(logging.Formatter("%(message)s"))
        self.logger = logging.Logger("shop")
        self.logger.addHandler(self.writer)
        self._text = b""

    def log_lines(self, numbers: range) -> None:
        for number in numbers:
            self.logger.warning("line %05d %s", number, "x" * 88)  # 100 bytes with its newline

    def lines(self, until: Callable[[list[str]], bool]) -> list[str]:
        """Read the pipe until the whole lines fulfil the condition."""
        while True:
            *lines, _ = self._text.decode().split("\n")
            if until(lines):
                return lines
            self._text += os.read(self.reader, 1000)

    def close(self) -> None:
        """Close both ends. The thread must not write to the number of a descriptor that another test gets."""
        if self.reader >= 0:
            self.close_reader()
        self.writer.flush()
        assert self.writer._queued == 0
        os.close(self.descriptor)

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    made.close()


def numbers_of(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("line ")]


def test_lines_are_written_at_once_while_the_pipe_has_room(log: Log) -> None:
    log.log_lines(range(10))
    assert numbers_of(os.read(log.reader, PIPE_SIZE).decode().splitlines()) == list(range(10))
    assert not log.writer._has_thread


def test_full_pipe_holds_nothing_up_and_keeps_the_order(log: Log) -> None:
    log.log_lines(range(100))  # 40 fit into the pipe
    assert log.writer.dropped == 0
    lines = log.lines(lambda lines: len(lines) == 100)
    log.writer.flush()
    log.log_lines(range(100, 110))  # written at once again
    lines = log.lines(lambda lines: len(lines) == 110)
    assert numbers_of(lines) == list(range(110))


def test_dropped_lines_are_counted_where_they_are_missing(log: Log) -> None:
    log.log_lines(range(1000))
    dropped = log.writer.dropped
    assert 800 < dropped < 900
    lines = log.lines(lambda lines: any("were dropped" in line for line in lines))
    log.log_lines(range(1000, 1010))
    lines = log.lines(lambda lines: bool(lines) and lines[-1].startswith("line 01009"))
    kept = numbers_of(lines)
    assert kept == [*range(1000 - dropped), *range(1000, 1010)]
    (report,) = (line for line in lines if not line.startswith("line "))
    assert re.match(r"(\d+) lines of the log were dropped here", report)
    assert int(report.split()[0]) == dropped
    assert log.writer.dropped == dropped


def test_one_dropped_line_is_reported_as_one(log: Log) -> None:
    log.writer._drop()
    log.log_lines(range(1))
    (report,) = (line for line in log.lines(lambda lines: len(lines) == 2) if not line.startswith("line "))
    assert report.startswith("1 line of the log was dropped here")


def test_long_line_is_written_whole() -> None:
    log = Log(max_queued=100_000)
    log.logger.warning("x" * 50_000)
    log.logger.warning("next")
    assert log.lines(lambda lines: len(lines) == 2) == ["x" * 50_000, "next"]
    log.close()


def test_flush_waits_for_the_reader_but_not_for_ever(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "FLUSH_TIME", 0.05)
    log.log_lines(range(100))
    log.writer.flush()  # there is no reader yet
    monkeypatch.setattr(log_writer, "FLUSH_TIME", 30.0)
    reader = threading.Thread(target=log.lines, args=(lambda lines: len(lines) == 100,))
    reader.start()
    log.writer.flush()
    assert log.writer._queued == 0
    reader.join()
    monkeypatch.undo()


def test_lost_reader_fails_no_log_call() -> None:
    log = Log()
    log.close_reader()
    log.log_lines(range(3))
    assert log.writer.dropped == 3
    log.close()


def test_reader_that_is_lost_later_is_counted() -> None:
    log = Log()
    log.log_lines(range(50))
    log.close_reader()
    for _ in range(1000):
        if log.writer.dropped:
            break
        sleep(0.01)
    assert log.writer.dropped > 0
    log.close()


def test_message_that_cannot_be_formatted_leaves_a_line(log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    log.logger.warning("row %d", "three")
    log.logger.warning("next")
    first, second = log.lines(lambda lines: len(lines) == 2)
    assert first.startswith("the log message 'row %d' cannot be formatted: TypeError: ")
    assert f"see {__file__}:" in first
    assert second == "next"
    assert capfd.readouterr().err == ""


def test_surrogates_are_escaped(log: Log) -> None:
    log.logger.warning("\udcff")
    assert log.lines(lambda lines: len(lines) == 1) == ["\\udcff"]


def test_descriptor_itself_stays_blocking(log: Log) -> None:
    log.log_lines(range(100))
    assert os.get_blocking(log.descriptor)
    log.lines(lambda lines: len(lines) == 100)


def test_socket_and_terminal_hold_nothing_up() -> None:
    ours, theirs = socket.socketpair()
    master, slave = pty.openpty()
    for descriptors in ((theirs.detach(), ours.detach()), (master, slave)):
        log = Log(descriptors, max_queued=100_000)
        log.log_lines(range(20_000))
        assert log.writer.dropped > 0
        lines = log.lines(lambda lines: len(lines) > 500)
        assert numbers_of([line.strip() for line in lines]) == list(range(len(lines)))
        log.close()


def test_file_is_written_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = Log((os.open(os.devnull, os.O_RDONLY), os.dup(file.fileno())))
        log.log_lines(range(10))
        file.write(b"print\n")
        file.flush()
        log.log_lines(range(10, 20))
        log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[10] == "print"  # both share the position in the file
    assert numbers_of(lines) == list(range(20))


def test_thread_writes_where_the_pipe_cannot_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> object:
        raise PermissionError

    monkeypatch.setattr("tinysvc.telemetry.log_writer.os.open", refuse)
    log = Log()
    monkeypatch.undo()
    log.log_lines(range(100))
    assert numbers_of(log.lines(lambda lines: len(lines) == 100)) == list(range(100))
    log.close()


def test_forked_child_writes_its_own_lines_once() -> None:
    log = Log()
    log.log_lines(range(60))  # 20 are queued
    child = os.fork()
    if child == 0:
        log.logger.warning("child")
        log.writer.flush()
        os._exit(0)
    lines = log.lines(lambda lines: len(lines) == 61)
    assert numbers_of(lines) == list(range(60))
    assert lines.count("child") == 1
    os.waitpid(child, 0)
    log.close()


def test_call_on_a_full_pipe_is_quick(log: Log) -> None:
    log.log_lines(range(1000))
    begun = monotonic()
    log.log_lines(range(1000))
    assert monotonic() - begun < 5.0  # it took a second without the queue: for ever
