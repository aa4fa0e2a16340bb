"""The server's side of one attempt of a durable job: the job of a pool that runs it. See durable_endpoints.py, too."""

from __future__ import annotations

from ..pool.arena import BIG, Arena, Arenas
from ..pool.state import Job, Lane
from .cpu_messages import DurableMessage, RequestMessage


def attempt_job(
    request: RequestMessage,
    job_id: str,
    attempt: int,
    body: bytes,
    saved: bytes | None,
    arenas: Arenas,
    *,
    timeout: float | None,
    lane: Lane | None = None,
    start_by: float | None = None,
) -> Job:
    """The job for `submit_job` of a pool. Its reply has a DurableReply.

    Args:
        request: The request. Its `deadline` is the attempt's.
        job_id: The id of the durable job.
        attempt: The number of the attempt.
        body: The body of the request.
        saved: The pickle that an earlier attempt has saved; None if there is none.
        arenas: The arenas of the pool.
        timeout: Seconds until the pool kills the attempt. None: no limit.
        lane: Limits how many workers the route has at one time.
        start_by: Point in time (CLOCK_BOOTTIME) after which the attempt must not start. None: no limit.
    """
    size = len(body) + len(saved or b"")
    content: bytes | Arena = body
    if size >= BIG:
        content = arenas.take()
        try:
            content.write(body)
            content.write(saved or b"")
        except BaseException:
            content.close()
            raise
    elif saved is not None:
        content = body + saved
    message = DurableMessage(request, job_id, attempt, len(body), saved is not None, start_by)
    return Job(message, content, timeout, lane)
