"""swap_memory.py: which versions are tried next, and when crashes are too many. Without processes."""

from __future__ import annotations

from math import inf

import pytest

from tinysvc.models.artifact_version import ArtifactVersion
from tinysvc.runtime import swap_memory
from tinysvc.runtime.swap_memory import CRASHES, WINDOW, CrashWatch, FailedStates, RefusedVersions, state_of


def version(name: str, number: int) -> ArtifactVersion:
    return ArtifactVersion(name, number, f"/copies/{name}/{number}", f"{name}{number}", {})


SERVED = {"churn@production": version("churn", 7), "words@production": version("words", 3)}
NEW = {"churn@production": version("churn", 8), "words@production": version("words", 4)}


def numbers(candidate: dict[str, ArtifactVersion] | None) -> list[int] | None:
    return None if candidate is None else [each.version for each in candidate.values()]


def test_all_new_versions_are_tried_together_and_then_each_alone() -> None:
    failed = FailedStates()
    chosen = []
    while (candidate := failed.choose(SERVED, NEW)) is not None:
        chosen.append(numbers(dict(candidate)))
        failed.add([state_of(candidate)])
    assert chosen == [[8, 4], [8, 3], [7, 4]]


def test_version_that_failed_is_tried_again_with_another_one() -> None:
    failed = FailedStates()
    failed.add([["churn8", "words3"]])
    assert failed.choose(SERVED, {"churn@production": version("churn", 8)}) is None
    assert failed.choose(SERVED, NEW) is not None


def test_nothing_is_tried_without_a_new_version() -> None:
    assert FailedStates().choose(SERVED, SERVED) is None
    assert FailedStates().choose({}, {}) is None


def test_first_version_is_new() -> None:
    assert FailedStates().choose({}, {"churn@production": version("churn", 1)}) is not None


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(swap_memory, "monotonic", clock)
    return clock


def test_pause_doubles_up_to_a_minute(clock: Clock) -> None:
    refused = RefusedVersions()
    pauses = []
    for _ in range(9):
        refused.hold("churn@production", 8, 1.0)
        began = clock.now
        while refused.is_held("churn@production", 8):
            clock.now += 0.5
        pauses.append(clock.now - began)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert not refused.is_held("churn@production", 9)


def test_invalid_version_is_held_for_ever(clock: Clock) -> None:
    refused = RefusedVersions()
    refused.hold("churn@production", 8, inf)
    clock.now += 1e9
    assert refused.is_held("churn@production", 8)


def watch(clock: Clock) -> CrashWatch:
    crashes = CrashWatch()
    crashes.begin({"default": "churn@8"})
    return crashes


def test_second_crash_of_the_new_version_is_too_many(clock: Clock) -> None:
    crashes = watch(clock)
    found = [crashes.note("default", "churn@8", "crashed") for _ in range(CRASHES)]
    assert found == [False] * (CRASHES - 1) + [True]
    assert (crashes.count, crashes.is_bad) == (CRASHES, True)


@pytest.mark.parametrize(
    ("pool", "label", "cause"),
    [
        ("other", "churn@8", "crashed"),
        ("default", "churn@7", "crashed"),
        ("default", "churn@8", "deadline"),
        ("default", "churn@8", "killed"),
        ("default", "churn@8", "replaced"),
    ],
)
def test_other_ends_do_not_count(clock: Clock, pool: str, label: str, cause: str) -> None:
    crashes = watch(clock)
    assert not any(crashes.note(pool, label, cause) for _ in range(10))


def test_crashes_count_during_the_swap_and_for_a_minute_after_it(clock: Clock) -> None:
    crashes = watch(clock)
    crashes.note("default", "churn@8", "crashed")
    clock.now += 500
    crashes.swapped()
    clock.now += WINDOW - 1
    assert not crashes.is_over
    assert crashes.note("default", "churn@8", "out_of_memory")
    clock.now += 2
    assert (crashes.is_over, crashes.is_bad) == (True, False)


def test_new_version_may_crash_as_often_as_the_old_one(clock: Clock) -> None:
    crashes = CrashWatch()
    crashes.note("default", "churn@7", "crashed")  # long ago
    clock.now += WINDOW + 1
    for _ in range(3):
        crashes.note("default", "churn@7", "crashed")
    crashes.begin({"default": "churn@8"})
    found = [crashes.note("default", "churn@8", "crashed") for _ in range(CRASHES + 3)]
    assert found == [False] * (CRASHES + 2) + [True]
    crashes.end()
    assert not crashes.is_bad
