"""testing.py: a real server for tests; a test fails when a handler has failed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import faulty
from tinysvc import ConfigurationError, HTTPError, Service, cpu_route, io_resource, io_route
from tinysvc.core.errors import RemoteError
from tinysvc.testing import serving

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_server_runs_during_the_block() -> None:
    with serving(Service(faulty.io)) as url:
        assert httpx.get(f"{url}/io/1").json() == {"number": 1}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/io/1")


def test_two_servers_run_side_by_side() -> None:
    with serving(Service(faulty.io)) as one, serving(Service(faulty.cpu), cpu_workers=1) as two:
        assert httpx.get(f"{one}/io/1").json() == httpx.get(f"{two}/cpu/1").json()


def test_start_up_error_is_raised() -> None:
    with pytest.raises(ConfigurationError, match="is a lambda"), serving(Service(cpu_route("/")(lambda: None))):
        pass


@pytest.mark.parametrize("wrong", [faulty.io, [faulty.io], None])
def test_wrong_target_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is served, not .*; of functions make a Service"), serving(wrong):
        pass


HANGS = """
import asyncio, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores SIGINT for background processes
from tinysvc import Service, io_resource, io_route
from tinysvc.testing import serving

@io_resource
async def never():
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(3600)

@io_route("/")
async def waits(never): ...

with serving(Service(waits, never)):
    pass
"""


def test_ctrl_c_ends_a_start_that_hangs() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50, check=False)
    assert ended.stderr.endswith("KeyboardInterrupt\n")


def test_error_of_the_test_is_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), serving(Service(faulty.io)):
        1 / 0  # noqa: B018


# Errors of handlers


@io_route("/fails/{what}")
async def fails(what: str) -> None:
    raise KeyError(what)


@io_route("/refuses")
async def refuses() -> None:
    raise HTTPError(503, "Not now.")


@cpu_route("/computes-wrong")
def computes_wrong() -> float:
    return 1 / 0


def test_error_of_a_handler_is_raised_in_the_test() -> None:
    with pytest.raises(KeyError, match="it") as raised, serving(Service(fails)) as url:
        assert httpx.get(f"{url}/fails/it").status_code == 500
    assert raised.traceback[-1].name == "fails"


def test_error_of_a_cpu_handler_is_raised_in_the_test() -> None:
    raised = pytest.raises(RemoteError, match=r"in computes_wrong(.|\n)*ZeroDivisionError")
    with raised, serving(Service(computes_wrong), cpu_workers=1) as url:
        assert httpx.get(f"{url}/computes-wrong").status_code == 500


def test_several_errors_are_raised_as_a_group() -> None:
    with pytest.raises(ExceptionGroup) as raised, serving(Service(fails)) as url:
        assert {httpx.get(f"{url}/fails/{what}").status_code for what in ("one", "other")} == {500}
    assert [error.args for error in raised.value.exceptions] == [("one",), ("other",)]


def test_errors_are_notes_of_the_tests_own_exception() -> None:
    with pytest.raises(httpx.HTTPStatusError) as raised, serving(Service(fails)) as url:
        httpx.get(f"{url}/fails/it").raise_for_status()
    (note,) = raised.value.__notes__
    assert note.startswith("the server failed during the block:\nTraceback")
    assert note.endswith("KeyError: 'it'")


def test_option_suppresses_errors_of_handlers() -> None:
    with serving(Service(fails), raise_errors=False) as url:
        assert httpx.get(f"{url}/fails/it").json()["status"] == 500


def test_intended_error_responses_are_not_raised() -> None:
    with serving(Service(refuses)) as url:
        assert httpx.get(f"{url}/refuses").status_code == 503
        assert httpx.get(f"{url}/nowhere").status_code == 404


@io_resource
async def unclosable() -> AsyncIterator[int]:
    yield 1
    raise OSError("cannot be closed")


@io_route("/uses")
async def uses(unclosable: int) -> int:
    return unclosable


def test_error_of_a_cleanup_is_raised_in_the_test() -> None:
    with pytest.raises(OSError, match="cannot be closed"), serving(Service(uses, unclosable)) as url:
        assert httpx.get(f"{url}/uses").text == "1"
    with serving(Service(uses, unclosable), raise_errors=False) as url:
        assert httpx.get(f"{url}/uses").text == "1"


def test_each_server_raises_its_own_errors() -> None:
    with serving(Service(faulty.io)) as one, pytest.raises(KeyError), serving(Service(fails)) as other:
        assert (httpx.get(f"{one}/io/1").status_code, httpx.get(f"{other}/fails/it").status_code) == (200, 500)
