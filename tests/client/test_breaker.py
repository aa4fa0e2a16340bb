"""breaker.py: the circuit breaker of a replica."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tinysvc.client.breaker import FIRST_PAUSE, LONGEST_PAUSE, MAX_FAILURES, REFUSED_PAUSE, Breaker


def opened(draw: float = 0.5) -> Breaker:
    breaker = Breaker()
    for _ in range(MAX_FAILURES):
        assert breaker.allows(0.0)
        breaker.fail(0.0, draw)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker()
    for _ in range(MAX_FAILURES - 1):
        assert not breaker.fail(0.0, 0.5)
    breaker.succeed()
    for _ in range(MAX_FAILURES - 1):
        assert not breaker.fail(0.0, 0.5)
    assert breaker.fail(0.0, 0.5)
    assert not breaker.allows(FIRST_PAUSE - 0.01)
    assert breaker.allows(FIRST_PAUSE)


def test_refused_connection_opens_it_at_once_and_shortly() -> None:
    breaker, now = Breaker(), 0.0
    assert breaker.fail(now, 0.5, at_once=True, pause=REFUSED_PAUSE)
    for _ in range(20):
        assert breaker.until - now == pytest.approx(REFUSED_PAUSE)
        now = breaker.until
        assert breaker.begin()
        assert breaker.fail(now, 0.5, is_probe=True, at_once=True, pause=REFUSED_PAUSE)
        breaker.end_probe()
    assert breaker.begin()
    breaker.fail(now, 0.5, is_probe=True)  # now it is something else
    assert breaker.until - now == pytest.approx(2 * FIRST_PAUSE)


def test_one_probe_at_a_time() -> None:
    breaker = opened()
    assert breaker.begin()
    assert not breaker.allows(FIRST_PAUSE + 1)
    breaker.end_probe()  # it was cancelled
    assert breaker.allows(FIRST_PAUSE + 1)


def test_failed_probes_double_the_pause() -> None:
    breaker, now, pauses = opened(), 0.0, list[float]()
    for _ in range(12):
        pauses.append(breaker.until - now)
        now = breaker.until
        assert breaker.begin()
        breaker.fail(now, 0.5, is_probe=True)
        breaker.end_probe()
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


@pytest.mark.parametrize("draw", [0.0, 0.999])
def test_pause_is_jittered(draw: float) -> None:
    assert opened(draw).until == pytest.approx(FIRST_PAUSE * (0.5 + draw))


def test_late_failures_do_not_lengthen_the_pause() -> None:
    breaker = opened()
    until = breaker.until
    for _ in range(20):
        breaker.fail(0.1, 0.5)
    assert breaker.until == until


class Calls(RuleBasedStateMachine):
    """Calls begin and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 0.0
        self.running: list[bool] = []  # whether each is the probe

    @rule(seconds=st.floats(0.01, 40.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.allows(self.now))
    @rule()
    def begin(self) -> None:
        self.running.append(self.breaker.begin())

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(["answer", "failure", "refused", "cancel"]), draw=st.floats(0.0, 1.0))
    def end(self, data: st.DataObject, outcome: str, draw: float) -> None:
        is_probe = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if outcome == "answer":
            self.breaker.succeed()
        elif outcome != "cancel":
            self.breaker.fail(self.now, draw, is_probe=is_probe, at_once=outcome == "refused")
        if is_probe:
            self.breaker.end_probe()

    @invariant()
    def at_most_one_probe(self) -> None:
        assert sum(self.running) <= 1

    @invariant()
    def never_shut_for_ever(self) -> None:
        assert any(self.running) or self.breaker.allows(self.now + 1.5 * LONGEST_PAUSE)


TestCalls = Calls.TestCase
