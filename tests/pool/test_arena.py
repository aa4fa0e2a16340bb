"""arena.py: anonymous memory."""

from __future__ import annotations

import errno
import os
import sys
import tempfile

import pytest

from tinysvc.pool.arena import KEPT_ARENAS, Arena, Arenas

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_view_outlives_the_descriptor() -> None:
    arena = Arena()
    arena.write(b"abc")
    arena.write(bytearray(b"def"))
    arena.write(memoryview(b"ghi"))
    view = arena.view()
    arena.close()
    arena.close()
    assert bytes(view) == b"abcdefghi"
    assert repr(arena) == "<Arena 9 bytes>"


def test_view_of_an_empty_arena_is_empty() -> None:
    assert bytes(Arena().view()) == b""


def test_unreferenced_arena_is_closed() -> None:
    descriptor = Arena().descriptor
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_two_arenas_of_one_descriptor_share_memory() -> None:
    ours = Arena()
    theirs = Arena(os.dup(ours.descriptor))
    theirs.write(b"from them")
    ours.size = theirs.size
    assert bytes(ours.view()) == b"from them"
    for arena in (ours, theirs):
        arena.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can seal a file")
def test_receiver_of_an_arena_cannot_shrink_it() -> None:
    arena = Arena()
    arena.write(b"x" * 10_000)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.descriptor, 0)
    arena.close()


def test_unlinked_file_replaces_a_missing_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    before = set(os.listdir(tempfile.gettempdir()))
    arena = Arena()
    arena.write(b"abc")
    assert bytes(arena.view()) == b"abc"
    assert set(os.listdir(tempfile.gettempdir())) <= before
    arena.close()


def refuse(*_: object, **__: object) -> int:
    raise PermissionError(errno.EPERM, "refused by the sandbox")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there is no memfd_create to refuse")
@pytest.mark.parametrize("refused", ["memfd_create", "sealing", "fcntl"])
def test_arena_works_where_a_sandbox_refuses_calls(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = os.memfd_create
    if refused == "memfd_create":
        monkeypatch.setattr(os, "memfd_create", refuse)
    elif refused == "sealing":
        monkeypatch.setattr(
            os, "memfd_create", lambda name, flags: refuse() if flags & os.MFD_ALLOW_SEALING else create(name, flags)
        )
    else:
        monkeypatch.setattr("fcntl.fcntl", refuse)
    arena = Arena()
    arena.write(b"abc")
    assert bytes(arena.view()) == b"abc"
    arena.close()


def test_error_without_any_file_names_both_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"memfd_create failed \(refused.*temporary file \(refused.*TMPDIR"):
        Arena()


def test_spare_arenas_are_closed_one_at_a_time() -> None:
    arenas = Arenas()
    for arena in [Arena() for _ in range(3)]:
        arenas.give_back(arena)
    assert not arenas.trim()  # the first call only begins to count
    arenas.give_back(arenas.take())
    assert [arenas.trim(), arenas.trim(), arenas.trim(), arenas.trim()] == [True, True, True, False]
    assert len(arenas) == 0
    for arena in [Arena() for _ in range(KEPT_ARENAS + 1)]:
        arenas.give_back(arena)
    assert len(arenas) == KEPT_ARENAS
    arenas.close()
