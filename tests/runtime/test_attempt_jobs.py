"""attempt_jobs.py: the body of the pool's job is that of the request and the saved value; a big one is in an arena."""

from __future__ import annotations

import pytest

from tinysvc.core.requests import Peer
from tinysvc.pool.arena import BIG, Arena, Arenas
from tinysvc.runtime.attempt_jobs import attempt_job
from tinysvc.runtime.cpu_messages import DurableMessage, RequestMessage

REQUEST = RequestMessage(4, "POST", "/", "", None, [], Peer(None, None, "http"), "id-1", None)


@pytest.mark.parametrize("saved", [None, b"", b"pickle"], ids=repr)
def test_small_body_is_joined_with_the_saved_value(saved: bytes | None) -> None:
    job = attempt_job(REQUEST, "ab", 2, b"body", saved, Arenas(), timeout=5)
    assert (job.body, job.timeout) == (b"body" + (saved or b""), 5)
    assert job.meta == DurableMessage(REQUEST, "ab", 2, 4, saved is not None)
    assert job.meta.endpoint == 4


@pytest.mark.parametrize(("body", "saved"), [(b"b" * BIG, None), (b"b", b"s" * BIG)], ids=["request", "saved"])
def test_big_body_is_in_an_arena(body: bytes, saved: bytes | None) -> None:
    job = attempt_job(REQUEST, "ab", 1, body, saved, Arenas(), timeout=None)
    assert isinstance(job.body, Arena)
    assert bytes(job.body.view()) == body + (saved or b"")
    assert job.meta.size == len(body)
    job.body.close()


def test_arena_is_closed_if_no_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    arenas = Arenas()
    arena = arenas.take()

    def fail(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    class Full(Arena):
        write = staticmethod(fail)  # type: ignore[assignment]

    full = Full(arena.descriptor)
    arena.descriptor = -1
    monkeypatch.setattr(arenas, "take", lambda: full)
    with pytest.raises(OSError, match="No space left"):
        attempt_job(REQUEST, "ab", 1, b"b" * BIG, None, arenas, timeout=None)
    assert full.descriptor == -1
