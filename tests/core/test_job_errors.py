"""job_errors.py: status, problem document and Retry-After of each error of durable jobs."""

from __future__ import annotations

import pytest

from tinysvc.core.job_errors import JobError, KeyReused, NoLongerFits, StoreError, StoreFull, TooManyWaiting


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry_after"),
    [
        (StoreError("/var/jobs.db: disk I/O error"), 503, "job-store-unavailable", "1"),
        (StoreFull("/var/jobs.db: no space left"), 507, "job-store-full", "60"),
        (TooManyWaiting("10 durable jobs of /trainings wait already."), 503, "too-many-waiting", "1"),
        (KeyReused("user-7"), 422, "key-reused", None),
        (NoLongerFits("its resource user is new"), 500, "arguments-no-longer-fit", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, JobError) else "",
)
def test_error_has_status_and_problem(error: JobError, status: int, kind: str, retry_after: str | None) -> None:
    problem = error.problem()
    assert (error.status, problem["status"], problem["type"]) == (status, status, f"urn:tinysvc:{kind}")
    assert dict(error.headers).get("retry-after") == retry_after
    assert problem.get("detail", "") == error.public


def test_path_of_the_store_is_for_the_log_only() -> None:
    error = StoreFull("/var/jobs.db: no space left")
    assert "/var/jobs.db" in str(error)
    assert "/var/jobs.db" not in error.public


def test_reused_key_names_the_remedy() -> None:
    assert str(KeyReused("user-7")) == (
        "The Idempotency-Key 'user-7' was used before, with another request. "
        "Repeat that request unchanged, or take a new key."
    )
