"""process_questions.py: one server process asks another one, through the supervisor."""

from __future__ import annotations

import asyncio

import pytest

from tinysvc.server import process_questions as module
from tinysvc.server.process_questions import ProcessQuestions, passed_on

pytestmark = pytest.mark.asyncio


class FakeSupervisor:
    """Passes lines on between the processes that were added, each with its pid."""

    def __init__(self) -> None:
        self.processes: dict[int, ProcessQuestions] = {}
        self._loop = asyncio.get_running_loop()

    def add(self, pid: int, answer: bytes | Exception = b"") -> ProcessQuestions:
        async def respond(question: bytes) -> bytes:
            if isinstance(answer, Exception):
                raise answer
            return answer + question

        self.processes[pid] = found = ProcessQuestions(FakeLink(self, pid), respond)
        return found

    def send(self, sender: int, line: bytes) -> None:
        found = passed_on(sender, line)
        assert found is not None
        if found[0] in self.processes:
            self._loop.call_soon_threadsafe(self.processes[found[0]].receive, found[1])


class FakeLink:
    def __init__(self, supervisor: FakeSupervisor, pid: int) -> None:
        self._supervisor = supervisor
        self._pid = pid

    def send_line(self, line: bytes) -> None:
        self._supervisor.send(self._pid, line)


async def test_question_reaches_its_process_and_the_answer_comes_back() -> None:
    supervisor = FakeSupervisor()
    one, other = supervisor.add(40, b"one: "), supervisor.add(41, b"other: ")
    answers = await asyncio.gather(one.ask(41, b"a b"), one.ask(41, b"c"), other.ask(40, b""))
    assert list(answers) == [b"other: a b", b"other: c", b"one: "]


async def test_process_that_does_not_exist_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 0.05)
    with pytest.raises(TimeoutError):
        await FakeSupervisor().add(40).ask(41, b"x")


async def test_failed_answer_is_logged_and_is_a_timeout(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LIMIT", 0.1)
    supervisor = FakeSupervisor()
    supervisor.add(41, ValueError("broken"))
    with pytest.raises(TimeoutError):
        await supervisor.add(40).ask(41, b"x")
    assert "a question of the server process 40 could not be answered" in caplog.text


async def test_late_answer_and_other_lines_are_ignored() -> None:
    one = FakeSupervisor().add(40)
    one.receive(b"answered 9 late")
    one.receive(b"report 3")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"ask 41 7 a b", (41, b"asked 40 7 a b")),
        (b"answer 41 7 a b", (41, b"answered 7 a b")),
        (b"gather 7", None),
    ],
)
async def test_supervisor_passes_lines_on(line: bytes, expected: tuple[int, bytes] | None) -> None:
    assert passed_on(40, line) == expected
