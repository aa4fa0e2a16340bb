"""preferences.py: `Prefer` is read as in RFC 7240, and a wait has limits."""

from __future__ import annotations

from time import monotonic

import pytest

from tinysvc import Request
from tinysvc.core.headers import Headers
from tinysvc.jobs.requests.preferences import MAX_WAIT, Wait, preferences


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("wait=10", {"wait": "10"}),
        ("respond-async, wait=10", {"respond-async": "", "wait": "10"}),
        ("WAIT = 10", {"wait": "10"}),
        ('wait="10"', {"wait": "10"}),
        ('foo="a, b\\"; wait=3", wait=10', {"foo": 'a, b"; wait=3', "wait": "10"}),
        ("foo=bar; part=1; other, wait=10", {"foo": "bar", "wait": "10"}),
        ("wait=10, wait=20", {"wait": "10"}),
        (", ,wait=10,", {"wait": "10"}),
        ("", {}),
        ("wait 10", {}),
        ("=10", {}),
    ],
)
def test_preferences_of_a_line(line: str, expected: dict[str, str]) -> None:
    assert preferences([line]) == expected


def test_first_of_several_lines_counts() -> None:
    assert preferences(["wait=1", "wait=2, respond-async"]) == {"wait": "1", "respond-async": ""}


def wait_of(text: str, time_limit: float | None = None) -> Wait:
    request = Request("POST", "/", headers=Headers([(b"prefer", text.encode())]))
    request.time_limit = time_limit
    return Wait(request)


@pytest.mark.parametrize("text", ["wait=ten", "wait=-1", "wait=1.5", "wait", "respond-async", "wait=99999999999"])
def test_wait_that_is_no_number_of_seconds_is_ignored(text: str) -> None:
    assert wait_of(text).seconds == 0.0
    assert wait_of(text).headers() == []


def test_wait_is_applied_and_has_a_limit() -> None:
    wait = wait_of("wait=100000")
    assert MAX_WAIT - 60 < wait.seconds <= MAX_WAIT
    assert wait.headers() == [("preference-applied", "wait=100000")]
    assert Wait(Request("POST", "/")).seconds == 0.0


def test_wait_ends_before_the_budget_of_the_request() -> None:
    assert 0 < wait_of("wait=100", monotonic() + 50).seconds < 50
    assert wait_of("wait=100", monotonic()).seconds == 0.0
