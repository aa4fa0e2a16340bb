"""job_options.py: the pauses between the attempts of a durable job."""

from __future__ import annotations

from tinysvc.service.job_options import MAX_PAUSE, JobOptions, Retry


def test_pause_doubles_with_each_attempt() -> None:
    retry = Retry(wait=10)
    for used, longest in ((1, 10), (2, 20), (3, 40), (4, 80)):
        pauses = [retry.pause(used) for _ in range(200)]
        assert longest / 2 <= min(pauses) <= max(pauses) <= longest


def test_pauses_of_equal_jobs_differ() -> None:
    assert len({Retry(wait=10).pause(1) for _ in range(50)}) > 40


def test_pause_is_an_hour_at_most() -> None:
    assert MAX_PAUSE / 2 <= Retry(wait=10).pause(10**9) <= MAX_PAUSE
    assert Retry(wait=1e308).pause(100) <= MAX_PAUSE


def test_no_wait_is_no_pause() -> None:
    assert Retry(wait=0).pause(5) == 0


def test_a_job_has_three_attempts_and_is_kept_for_a_week() -> None:
    options = JobOptions()
    assert (options.retry.attempts, options.keep, options.every) == (3, 7 * 24 * 3600, "")
