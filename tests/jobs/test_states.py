"""states.py: the table of transitions, one test a rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tinysvc.core.job_errors import KeyReused, TooManyWaiting
from tinysvc.jobs import states
from tinysvc.jobs.records import ENDED, Failure, NewJob, Progress, Record, ResultHead, State
from tinysvc.jobs.states import Refusal

HEAD = ResultHead(status=200, content_type="application/json", size=2)
NOW = 1000.0


def made(new: Record | Refusal) -> Record:
    assert isinstance(new, Record)
    return new


def waiting(attempts: int = 3, due: float | None = None) -> Record:
    return states.accepted(NewJob(route="/trainings", request=b"", max_attempts=attempts, due=due), "0" * 32, NOW)


def running(attempts: int = 3) -> Record:
    return made(states.claim(waiting(attempts), "server", NOW + 1))


def record_in(state: State) -> Record:
    """A record in this state, which came there by the functions of states.py."""
    made_of: dict[State, Callable[[], Record]] = {
        State.SCHEDULED: lambda: waiting(due=NOW + 50),
        State.QUEUED: waiting,
        State.RUNNING: running,
        State.SUCCEEDED: lambda: made(states.finish(running(), 1, HEAD, NOW)),
        State.FAILED: lambda: made(states.fail(running(), 1, Failure("error", problem={"status": 500}), NOW)),
        State.CANCELLED: lambda: made(states.stopped(made(states.cancel(running(), NOW)), 1)),
    }
    return made_of[state]()


EVENTS: dict[str, tuple[Callable[[Record], Record | Refusal], dict[State, State]]] = {
    "claim": (lambda record: states.claim(record, "other", NOW), {State.QUEUED: State.RUNNING}),
    "wake": (lambda record: states.wake(record, NOW + 60), {State.SCHEDULED: State.QUEUED}),
    "progress": (lambda record: states.progress(record, 1, Progress()), {State.RUNNING: State.RUNNING}),
    "save": (lambda record: states.save(record, 1), {State.RUNNING: State.RUNNING}),
    "finish": (lambda record: states.finish(record, 1, HEAD, NOW), {State.RUNNING: State.SUCCEEDED}),
    "fail": (
        lambda record: states.fail(record, 1, Failure("error"), NOW),
        {State.RUNNING: State.FAILED},
    ),
    "fail, with a further attempt": (
        lambda record: states.fail(record, 1, Failure("error", retry_at=NOW + 9), NOW),
        {State.RUNNING: State.SCHEDULED},
    ),
    "release": (lambda record: states.release(record, 1, "shutdown", NOW), {State.RUNNING: State.QUEUED}),
    "lapse": (lambda record: states.lapse(record, NOW), {State.RUNNING: State.QUEUED}),
    "stopped": (lambda record: states.stopped(record, 1), {}),
    "cancel": (
        lambda record: states.cancel(record, NOW),
        dict.fromkeys((State.SCHEDULED, State.QUEUED, State.RUNNING, State.FAILED), State.CANCELLED),
    ),
    "retry": (lambda record: states.retry(record, NOW), {State.FAILED: State.QUEUED}),
    "expire": (
        lambda record: states.expire(record, NOW + 1e9),
        {State.SUCCEEDED: State.SUCCEEDED, State.CANCELLED: State.CANCELLED},
    ),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS)
def test_event_changes_the_state_as_the_table_says(event: str, state: State) -> None:
    apply, table = EVENTS[event]
    before = record_in(state)
    after = apply(before)
    if state not in table:
        assert isinstance(after, Refusal)
        return
    assert isinstance(after, Record)
    assert after.state == table[state]
    assert after.version == before.version + 1 + (states.LOST_VERSIONS if event == "lapse" else 0)
    assert (after.ended is not None) == (after.state in ENDED)


@pytest.mark.parametrize(
    "late",
    [
        lambda record: states.progress(record, 1, Progress()),
        lambda record: states.save(record, 1),
        lambda record: states.finish(record, 1, HEAD, NOW),
        lambda record: states.fail(record, 1, Failure("error"), NOW),
        lambda record: states.release(record, 1, "shutdown", NOW),
    ],
    ids=["progress", "save", "finish", "fail", "release"],
)
def test_write_of_an_older_attempt_is_stale(late: Callable[[Record], Record | Refusal]) -> None:
    second = made(states.claim(made(states.lapse(running(), NOW)), "other", NOW))
    assert second.attempt == 2
    assert late(second) == Refusal("stale")


def test_retry_until_no_attempt_is_left() -> None:
    record = running(attempts=2)
    record = made(states.fail(record, 1, Failure("error", "ValueError", problem={"n": 1}, retry_at=NOW + 5), NOW))
    assert (record.state, record.due, record.used, record.problem) == (State.SCHEDULED, NOW + 5, 1, {"n": 1})
    record = made(states.claim(made(states.wake(record, NOW + 5)), "server", NOW + 5))
    record = made(states.fail(record, 2, Failure("error", "ValueError", problem={"n": 2}, retry_at=NOW + 20), NOW + 6))
    assert (record.state, record.used, record.problem, record.expires) == (State.FAILED, 2, {"n": 2}, None)
    assert [each.cause for each in record.attempts] == ["error", "error"]


def test_success_ends_the_problem_of_an_earlier_attempt() -> None:
    record = made(states.fail(running(), 1, Failure("error", problem={"n": 1}, retry_at=NOW + 5), NOW))
    record = made(states.claim(made(states.wake(record, NOW + 5)), "o-1", NOW))
    record = made(states.finish(record, 2, ResultHead(status=200, content_type=None), NOW))
    assert (record.state, record.problem) == (State.SUCCEEDED, None)


def test_attempt_that_does_not_count_leaves_all_attempts() -> None:
    record = running(attempts=1)
    for number in range(1, 30):
        record = made(states.release(record, number, "shutdown", NOW))
        record = made(states.claim(record, "server", NOW))
    assert (record.attempt, record.used, record.state) == (30, 0, State.RUNNING)
    assert [each.number for each in record.attempts] == list(range(11, 31))


def test_poison_job_fails_when_servers_die_with_it() -> None:
    record = running(attempts=2)
    record = made(states.claim(made(states.lapse(record, NOW)), "second", NOW))
    record = made(states.lapse(record, NOW))
    assert (record.state, record.used, record.owner) == (State.FAILED, 2, "")
    assert record.problem is not None
    assert record.problem["type"] == "urn:tinysvc:server-died"


def test_retried_job_goes_on_with_attempt_numbers() -> None:
    record = made(states.retry(record_in(State.FAILED), NOW))
    assert (record.used, record.attempt, record.problem, record.ended) == (0, 1, None, None)
    assert made(states.claim(record, "server", NOW)).attempt == 2


def test_dismissed_job_keeps_its_problem_and_can_expire() -> None:
    record = made(states.cancel(record_in(State.FAILED), NOW + 5))
    assert (record.problem, record.ended, record.expires) == ({"status": 500}, NOW + 5, NOW + 5 + record.keep)
    assert [each.cause for each in record.attempts] == ["error"]
    assert states.retry(record, NOW) == Refusal("not-failed")


def test_cancelled_attempt_keeps_its_owner_until_the_worker_is_dead() -> None:
    record = made(states.cancel(running(), NOW))
    assert (record.state, record.owner, record.attempts[-1].cause) == (State.CANCELLED, "server", "cancelled")
    assert isinstance(states.expire(record, NOW + 1e9), Refusal)
    assert made(states.stopped(record, 1)).owner == ""
    assert made(states.lapse(record, NOW)).owner == ""
    assert isinstance(states.stopped(record, 2), Refusal)


def test_first_end_wins_over_cancel() -> None:
    assert states.cancel(record_in(State.SUCCEEDED), NOW) == Refusal("ended")
    assert states.finish(made(states.cancel(running(), NOW)), 1, HEAD, NOW) == states.STALE


def test_progress_survives_a_crash_only_with_a_saved_value() -> None:
    record = made(states.progress(running(), 1, Progress(fraction=0.5)))
    saved = made(states.save(record, 1))
    again, resumed = (made(states.claim(made(states.lapse(each, NOW)), "other", NOW)) for each in (record, saved))
    assert (again.progress, again.has_saved) == (None, False)
    assert (resumed.progress, resumed.has_saved) == (Progress(fraction=0.5), True)


def test_retention_begins_at_the_end() -> None:
    record = record_in(State.SUCCEEDED)
    assert record.expires == NOW + record.keep
    assert isinstance(states.expire(record, record.expires - 1), Refusal)
    expired = made(states.expire(record, record.expires))
    assert (expired.expired, expired.result, expired.state) == (True, None, State.SUCCEEDED)


def test_failed_job_is_kept_until_it_is_retried_or_cancelled() -> None:
    assert isinstance(states.expire(record_in(State.FAILED), NOW + 1e12), Refusal)


def test_problem_names_kind_and_status() -> None:
    assert states.problem_of("server-died", 500, "why") == {
        "type": "urn:tinysvc:server-died",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "why",
    }


def test_submission_repeats_the_job_with_its_key() -> None:
    new = NewJob(route="/trainings", request=b"", key="k", digest=b"1", max_waiting=1)
    earlier = states.accepted(new, "0" * 32, NOW)
    assert states.repeated_by(new, earlier, waiting=1) is earlier
    assert states.repeated_by(new, None, waiting=0) is None


def test_key_with_another_request_is_refused() -> None:
    new = NewJob(route="/trainings", request=b"", key="k", digest=b"1")
    earlier = states.accepted(NewJob(route="/trainings", request=b"", key="k", digest=b"2"), "0" * 32, NOW)
    with pytest.raises(KeyReused):
        states.repeated_by(new, earlier, waiting=0)


def test_only_a_route_with_max_waiting_refuses_a_submission() -> None:
    with pytest.raises(TooManyWaiting, match="2 durable jobs of /trainings wait already"):
        states.repeated_by(NewJob(route="/trainings", request=b"", max_waiting=2), None, waiting=2)
    assert states.repeated_by(NewJob(route="/trainings", request=b""), None, waiting=10**6) is None


@pytest.mark.parametrize(
    ("state", "kind", "owner"),
    [
        (State.QUEUED, "cancelled", ""),
        (State.RUNNING, "cancelled", "server"),
        (State.CANCELLED, "was-cancelled", ""),
        (State.SUCCEEDED, "ended", ""),
    ],
)
def test_cancel_outcome_names_the_server_process_that_must_kill(state: State, kind: str, owner: str) -> None:
    record = record_in(state)
    outcome = states.cancel_outcome(record, states.cancel(record, NOW))
    assert (outcome.kind, outcome.owner, outcome.attempt) == (kind, owner, record.attempt)
    assert outcome.record is not None
    assert outcome.record.state == (State.SUCCEEDED if kind == "ended" else State.CANCELLED)


def test_trace_of_a_job_is_kept_after_its_retention() -> None:
    record = record_in(State.SUCCEEDED)
    assert record.expires is not None
    assert states.forgotten_at(record) == record.expires + states.KEEP_EXPIRED
