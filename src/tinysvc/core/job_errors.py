"""The errors of durable jobs.

TinysvcError
└── JobError
    ├── StoreError             503  the store of durable jobs cannot keep or give a job now
    │   └── StoreFull          507  the disk of the store is full; jobs that are kept already go on
    ├── KeyReused              422  the Idempotency-Key was used before, with another request
    ├── TooManyWaiting         503  as many durable jobs of the route wait as its limit allows
    ├── StaleAttempt           409  in a worker: the attempt is not valid any more
    ├── NotSaved               503  in a worker: the store cannot keep the value of job.save(...) now
    ├── UnreadableSave         500  in a worker: the value that an earlier attempt has saved cannot be unpickled
    └── NoLongerFits           500  the stored request does not fit the handler, whose code has changed
"""

from __future__ import annotations

from .errors import TinysvcError


class JobError(TinysvcError):
    """Base of the errors of durable jobs.

    Attributes:
        message (str): The reason, in one sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def public(self) -> str:
        return self.message

    def __str__(self) -> str:
        return self.message


class StoreError(JobError):
    """503 with `Retry-After`: the store of durable jobs cannot keep or give a job now. Nothing was changed.

    The message has the reason, for the log only.

    Attributes:
        retry_after (int): Seconds after which a further try makes sense; the client gets it as `Retry-After`.
    """

    status = 503
    kind = "job-store-unavailable"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.headers = (("retry-after", str(retry_after)),)

    @property
    def public(self) -> str:
        return "The store of durable jobs is not available at the moment."  # the message may contain paths


class StoreFull(StoreError):
    """507 with `Retry-After`: the disk of the store is full. The job was not accepted; others go on."""

    status = 507
    kind = "job-store-full"

    def __init__(self, message: str, retry_after: int = 60) -> None:
        super().__init__(message, retry_after)

    @property
    def public(self) -> str:
        return "The store of durable jobs is full."


class TooManyWaiting(JobError):
    """503 with `Retry-After`: as many durable jobs of the route wait as its limit allows.

    Attributes:
        retry_after (int): Seconds after which a further try makes sense; the client gets it as `Retry-After`.
    """

    status = 503
    kind = "too-many-waiting"
    never_started = True

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.headers = (("retry-after", str(retry_after)),)


class KeyReused(JobError):
    """422: the `Idempotency-Key` was used before, with another request.

    Attributes:
        key (str): The key.
    """

    status = 422
    kind = "key-reused"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The Idempotency-Key {key!r} was used before, with another request. "
            "Repeat that request unchanged, or take a new key."
        )
        self.key = key


class StaleAttempt(JobError):
    """`job.save` or `job.progress` of an attempt that no longer counts: the job was cancelled, or another one has it.

    Example:
        ```python
        from tinysvc import Job
        from tinysvc.core.job_errors import StaleAttempt

        def train(job: Job) -> None:
            try:
                job.save("half")
            except StaleAttempt:
                print("remove temporary files, and stop")
                raise
        ```
    """

    status = 409
    kind = "stale-attempt"


class NotSaved(JobError):
    """`job.save` found that the store cannot write now. The value that was saved before is still there.

    Example:
        ```python
        from tinysvc import Job
        from tinysvc.core.job_errors import NotSaved

        def train(job: Job) -> None:
            for epoch in range(10):
                try:
                    job.save(epoch)
                except NotSaved:  # go on: after a crash, the job begins at the value before
                    pass
        ```
    """

    status = 503
    kind = "not-saved"


class UnreadableSave(JobError):
    """`job.saved` cannot be unpickled, as after a change of the code. The job fails, and no attempt is repeated."""

    kind = "saved-unreadable"


class NoLongerFits(JobError):
    """The stored request does not fit the handler, as after a change of the code. The job fails.

    Clients see no reason; the record of the attempt has it.
    """

    kind = "arguments-no-longer-fit"

    @property
    def public(self) -> str:
        return ""
