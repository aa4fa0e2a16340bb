"""job.py: a Job made by hand keeps all in memory; an Attempt asks the server, ten times a second at most."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from typing import Any

import pytest

import durable_handlers as app
from tinysvc import Job, Request
from tinysvc.core.errors import UnencodableResult
from tinysvc.core.job_errors import NotSaved, StaleAttempt, UnreadableSave
from tinysvc.runtime.job import MAX_PROGRESS, REPORT_PAUSE, Attempt
from tinysvc.runtime.job_messages import JobAnswer, ProgressReport, SaveRequest


class Server:
    """Answers the questions of an Attempt."""

    def __init__(self) -> None:
        self.reports: list[ProgressReport] = []
        self.times: list[float] = []
        self.saved: list[Any] = []
        self.answer: JobAnswer | None = JobAnswer()
        self.asked = threading.Event()

    def ask(self, question: Any, body: bytes) -> tuple[Any, bytes]:
        if isinstance(question, ProgressReport):
            self.reports.append(question)
            self.times.append(time.monotonic())
        else:
            assert isinstance(question, SaveRequest)
            self.saved.append(pickle.loads(body))
        self.asked.set()
        return self.answer, b""

    def attempt(self, saved: bytes | None = None, discards_unreadable: bool = False) -> Attempt:
        return Attempt("ab" * 16, 2, self.ask, saved, discards_unreadable)


def test_job_made_by_hand_goes_on_where_it_has_saved() -> None:
    job = Job()
    first = app.train(app.Recipe(2), job, [1], {})
    assert (first["from"], first["attempt"], job.saved, job.fraction, job.values) == (0, 1, 2, 1.0, {"epoch": 1})
    assert app.train(app.Recipe(3), job, [1], {})["from"] == 2
    assert Job(saved=7, attempt=3).saved == 7
    assert repr(job) == "<Job 00000000, attempt 1, 100%>"


def test_job_made_by_hand_checks_its_values_as_in_a_worker() -> None:
    job = Job()
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        job.save(lambda: None)
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1"):
            job.progress(fraction)
    with pytest.raises(UnencodableResult, match=r"the values of job\.progress have no JSON: \$\.thing is a object"):
        job.progress(0.5, thing=object())
    with pytest.raises(ValueError, match="a whole number of more than 64 bits; report it as text or float"):
        job.progress(0.5, key=2**64)
    with pytest.raises(ValueError, match="65536 are allowed"):
        job.progress(0.5, text="x" * MAX_PROGRESS)
    assert (job.saved, job.fraction, job.values) == (None, None, {})


def test_parameter_gets_the_attempt_of_its_request() -> None:
    request, attempt = Request("POST", "/"), Server().attempt()
    with attempt.of(request):
        assert Job.of_request(request) is attempt
    assert Job.of_request(request) is not attempt


def test_saved_value_is_unpickled_when_it_is_read() -> None:
    attempt = Server().attempt(pickle.dumps({"epoch": 3}))
    assert attempt.saved == {"epoch": 3}
    assert attempt.saved is attempt.saved
    assert Server().attempt().saved is None


def test_unreadable_save_is_logged_and_fails_the_job(caplog: pytest.LogCaptureFixture) -> None:
    attempt = Server().attempt(pickle.dumps(app.Gone()))
    for _ in range(2):  # a handler that catches the error gets it again
        with pytest.raises(UnreadableSave, match=r"No module named 'old_models'.*on_unreadable_save"):
            _ = attempt.saved
    assert "cannot be unpickled" in caplog.text


def test_unreadable_save_is_none_if_the_route_allows_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert Server().attempt(pickle.dumps(app.Gone()), discards_unreadable=True).saved is None
    assert "No module named 'old_models'" in caplog.text


def test_save_raises_the_refusal_of_the_server() -> None:
    server = Server()
    attempt = server.attempt(pickle.dumps(1))
    attempt.save((1, 2))
    assert (server.saved, attempt.saved) == ([(1, 2)], 1)
    server.answer = JobAnswer("stale", "another attempt has the job")
    with pytest.raises(StaleAttempt, match="another attempt"):
        attempt.save(3)
    with pytest.raises(StaleAttempt):
        attempt.progress(0.5)
    server.answer = JobAnswer("unavailable", "the disk is full")
    with pytest.raises(NotSaved, match="the disk is full"):
        attempt.save(4)


def test_flood_of_progress_is_ten_reports_a_second_and_the_last_one() -> None:
    server = Server()
    attempt = server.attempt()
    with attempt.of(Request("POST", "/")):
        calls = app.flood(attempt)
    assert calls > 100
    assert server.reports[0].values == {"calls": 1}
    assert server.reports[-1].values == {"calls": calls}
    pauses = [later - earlier for earlier, later in zip(server.times[:-1], server.times[1:-1], strict=False)]
    assert min(pauses) >= REPORT_PAUSE * 0.9  # except the last one, which is sent at the end


def test_report_is_sent_while_the_handler_computes_on() -> None:
    server = Server()
    attempt = server.attempt()
    with attempt.of(Request("POST", "/")):
        attempt.progress(0.1)
        attempt.progress(0.2)
        server.asked.clear()
        assert server.asked.wait(20)
    assert [each.fraction for each in server.reports] == [0.1, 0.2]
    assert not [each for each in threading.enumerate() if each.name == "tinysvc progress"]


def test_refused_report_of_the_timer_does_not_end_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    attempt = server.attempt()
    with caplog.at_level(logging.DEBUG), attempt.of(Request("POST", "/")):
        attempt.progress(0.1)
        attempt.progress(0.2)
        server.answer = JobAnswer("stale", "cancelled")
        server.asked.clear()
        assert server.asked.wait(20)
        attempt.progress(0.3)
    assert server.reports[-1].fraction == 0.3
    assert "was not sent: cancelled" in caplog.text


def test_report_is_a_copy_of_its_values() -> None:
    server = Server()
    attempt, losses = server.attempt(), [1.0]
    attempt.progress(0.1)
    attempt.progress(0.2, losses=losses)
    losses.append(0.5)
    with attempt.of(Request("POST", "/")):
        pass
    assert server.reports[-1].values == {"losses": [1.0]}


def test_thread_that_outlives_its_attempt_cannot_ask() -> None:
    server = Server()
    attempt = server.attempt()
    with attempt.of(Request("POST", "/")):
        attempt.save(1)
    with pytest.raises(StaleAttempt, match="the attempt has ended"):
        attempt.save(2)
    with pytest.raises(StaleAttempt, match="the attempt has ended"):
        attempt.progress(0.5)
    assert (server.saved, server.reports) == ([1], [])


def test_no_answer_is_no_refusal() -> None:
    server = Server()
    server.answer = None
    server.attempt().save(1)
    assert server.saved == [1]
