"""cron.py: the times of cron expressions, also where clocks are changed for daylight saving.

Clocks in Berlin in 2026: on 29 March 02:00 becomes 03:00 (+02:00); on 25 October 03:00 becomes 02:00 (+01:00).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.core.cron import Cron, CronError

BERLIN = "Europe/Berlin"


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def ticks(expression: str, after: str, until: str, zone: str = BERLIN) -> list[str]:
    """The times in the zone, with their offsets."""
    cron = Cron(expression, zone)
    return [
        datetime.fromtimestamp(tick, cron.zone).isoformat(timespec="minutes")
        for tick in cron.ticks(unix(after), unix(until))
    ]


def test_times_of_a_plain_day() -> None:
    assert ticks("30 3,15 * * *", "2026-07-01T00:00+02:00", "2026-07-02T03:30+02:00") == [
        "2026-07-01T03:30+02:00",
        "2026-07-01T15:30+02:00",
        "2026-07-02T03:30+02:00",
    ]


def test_after_is_excluded_and_until_is_included() -> None:
    assert ticks("0 3 * * *", "2026-07-01T03:00+02:00", "2026-07-02T03:00+02:00") == ["2026-07-02T03:00+02:00"]


def test_time_in_a_skipped_hour_is_due_at_the_end_of_the_gap() -> None:
    assert ticks("30 2 * * *", "2026-03-28T00:00+01:00", "2026-03-30T12:00+02:00") == [
        "2026-03-28T02:30+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]


def test_all_times_in_a_gap_are_due_once() -> None:
    assert ticks("*/10 1-3 * * *", "2026-03-29T01:40+01:00", "2026-03-29T03:10+02:00") == [
        "2026-03-29T01:50+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-29T03:10+02:00",
    ]


def test_time_in_a_repeated_hour_is_due_once() -> None:
    assert ticks("30 2 * * *", "2026-10-24T12:00+02:00", "2026-10-26T12:00+01:00") == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]
    assert ticks("*/30 2 * * *", "2026-10-25T00:00+02:00", "2026-10-25T12:00+01:00") == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:30+02:00",
    ]


def test_server_that_starts_in_the_second_of_two_equal_hours_has_no_time_left_there() -> None:
    assert ticks("30 2 * * *", "2026-10-25T02:10+01:00", "2026-10-26T02:30+01:00") == ["2026-10-26T02:30+01:00"]


def test_every_hour_is_due_in_both_of_two_equal_hours() -> None:
    assert ticks("30 * * * *", "2026-10-25T01:30+02:00", "2026-10-25T03:30+01:00") == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:30+01:00",
    ]


def test_every_hour_follows_elapsed_time_over_a_gap() -> None:
    assert ticks("30 * * * *", "2026-03-29T00:30+01:00", "2026-03-29T04:00+02:00") == [
        "2026-03-29T01:30+01:00",
        "2026-03-29T03:30+02:00",
    ]


def test_every_second_hour_is_due_after_the_gap_that_skips_it() -> None:
    assert ticks("0 */2 * * *", "2026-03-29T00:00+01:00", "2026-03-29T04:00+02:00") == [
        "2026-03-29T03:00+02:00",
        "2026-03-29T04:00+02:00",
    ]


def test_midnight_that_is_skipped_is_due_at_the_end_of_the_gap() -> None:
    """Clocks in Cairo were changed at midnight in 2024."""
    assert ticks("0 0 * * *", "2024-04-25T12:00+02:00", "2024-04-27T00:00+03:00", "Africa/Cairo") == [
        "2024-04-26T01:00+03:00",
        "2024-04-27T00:00+03:00",
    ]


def test_gap_of_half_an_hour() -> None:
    """On Lord Howe Island, clocks are changed by 30 minutes."""
    zone = "Australia/Lord_Howe"
    assert ticks("15 2 * * *", "2026-10-03T12:00+10:30", "2026-10-05T12:00+11:00", zone) == [
        "2026-10-04T02:30+11:00",
        "2026-10-05T02:15+11:00",
    ]


def test_day_that_is_skipped_is_due_at_its_end() -> None:
    """Samoa had no 30 December 2011."""
    assert ticks("0 10 * * *", "2011-12-29T12:00-10:00", "2011-12-31T12:00+14:00", "Pacific/Apia") == [
        "2011-12-31T00:00+14:00",
        "2011-12-31T10:00+14:00",
    ]


def test_names_of_days_and_months() -> None:
    assert ticks("0 9 * JAN MON", "2026-01-01T00:00+01:00", "2026-01-13T00:00+01:00") == [
        "2026-01-05T09:00+01:00",
        "2026-01-12T09:00+01:00",
    ]


def test_next_and_latest_are_the_times_around_a_moment() -> None:
    cron = Cron("0 3 * * *", BERLIN)
    assert cron.next(unix("2026-07-01T03:00+02:00")) == unix("2026-07-02T03:00+02:00")
    assert cron.latest(unix("2026-07-01T03:00+02:00")) == unix("2026-07-01T03:00+02:00")
    assert cron.latest(unix("2026-07-01T02:59+02:00")) == unix("2026-06-30T03:00+02:00")


def test_latest_time_may_be_years_ago() -> None:
    assert Cron("0 0 29 2 *").latest(unix("2027-06-01T00:00Z")) == unix("2024-02-29T00:00Z")
    assert Cron("0 0 29 2 *").next(unix("2024-03-01T00:00Z")) == unix("2028-02-29T00:00Z")


def test_first_of_the_month_that_is_a_monday() -> None:
    """A day of the month beside a weekday: both must fit if one of them is a star, else either."""
    assert ticks("0 0 1 * MON", "2026-06-02T00:00Z", "2026-06-16T00:00Z", "UTC") == [
        "2026-06-08T00:00+00:00",
        "2026-06-15T00:00+00:00",
    ]


@pytest.mark.parametrize(
    ("expression", "zone", "says"),
    [
        ("@daily", "UTC", "'@daily' has 1 fields; write five: minute, hour, day of the month, .*\"0 3 [*] [*] [*]\""),
        ("0 0 3 * * *", "UTC", "has 6 fields"),
        ("", "UTC", "'' has 0 fields"),
        ("61 3 * * *", "UTC", "'61 3 [*] [*] [*]' cannot be read: bad minute"),
        ("0 3 * * FOO", "UTC", "bad day-of-week"),
        ("0 3 31 2 *", "UTC", "bad day-of-month"),
        ("0 3 30 2 *", "UTC", "bad day-of-month"),
        ("0 3 * * *", "Berlin", "there is no time zone 'Berlin'; write one as in zone=\"Europe/Berlin\""),
        ("0 3 * * *", "Europe", "there is no time zone 'Europe'"),
        ("0 3 * * *", "../passwd", "there is no time zone"),
    ],
)
def test_mistakes_are_refused(expression: str, zone: str, says: str) -> None:
    with pytest.raises(CronError, match=says):
        Cron(expression, zone)


def test_expression_that_never_comes_is_refused() -> None:
    """The first day of a month is not its second Monday."""
    with pytest.raises(CronError, match=r"'0 3 [*]/31 [*] MON#2' never comes; check the day"):
        Cron("0 3 */31 * MON#2")


def test_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(CronError, match=r"pip install 'tinysvc\[cron\]'"):
        Cron("0 3 * * *")


@given(
    minute=st.sampled_from(["0", "30", "*/20", "5,45", "*"]),
    hour=st.sampled_from(["*", "2", "*/2", "1-3", "0", "*/6"]),
    zone=st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
)
def test_times_come_in_order_and_not_twice(minute: str, hour: str, zone: str, start: datetime) -> None:
    cron = Cron(f"{minute} {hour} * * *", zone)
    after = start.replace(tzinfo=UTC).timestamp()
    found = list(cron.ticks(after, after + timedelta(days=2).total_seconds()))
    assert all(a < b for a, b in pairwise([after, *found]))
    assert found[0] == cron.next(after)
    assert found[-1] == cron.latest(after + timedelta(days=2).total_seconds())
    walls = [datetime.fromtimestamp(tick, cron.zone).replace(tzinfo=None) for tick in found]
    if hour != "*":
        assert len(set(walls)) == len(walls)
