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


def test_it_serves_while_the_block_runs() -> None:
    with serving(Service(faulty.io)) as url:
        assert httpx.get(f"{url}/io/1").json() == {"number": 1}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/io/1")


def test_two_servers_side_by_side() -> None:
    with serving(Service(faulty.io)) as one, serving(Service(faulty.cpu), cpu_workers=1) as two:
        assert httpx.get(f"{one}/io/1").json() == httpx.get(f"{two}/cpu/1").json()


def test_what_keeps_it_from_starting_is_raised() -> None:
    with pytest.raises(ConfigurationError, match="is a lambda"), serving(Service(cpu_route("/")(lambda: None))):
        pass


@pytest.mark.parametrize("wrong", [faulty.io, [faulty.io], None])
def test_what_cannot_be_served_is_said(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is served, not .*; of functions make a Service"), serving(wrong):
        pass


HANGS = """
import asyncio, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests in the background
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


def test_an_error_of_the_test_is_the_tests() -> None:
    with pytest.raises(ZeroDivisionError), serving(Service(faulty.io)):
        1 / 0  # noqa: B018


# What handlers raise


@io_route("/fails/{what}")
async def fails(what: str) -> None:
    raise KeyError(what)


@io_route("/refuses")
async def refuses() -> None:
    raise HTTPError(503, "Not now.")


@cpu_route("/computes-wrong")
def computes_wrong() -> float:
    return 1 / 0


def test_what_a_handler_raises_is_raised_in_the_test() -> None:
    with pytest.raises(KeyError, match="it") as raised, serving(Service(fails)) as url:
        assert httpx.get(f"{url}/fails/it").status_code == 500
    assert raised.traceback[-1].name == "fails"


def test_of_a_worker_too() -> None:
    told = pytest.raises(RemoteError, match=r"in computes_wrong(.|\n)*ZeroDivisionError")
    with told, serving(Service(computes_wrong), cpu_workers=1) as url:
        assert httpx.get(f"{url}/computes-wrong").status_code == 500


def test_several() -> None:
    with pytest.raises(ExceptionGroup) as raised, serving(Service(fails)) as url:
        assert {httpx.get(f"{url}/fails/{what}").status_code for what in ("one", "other")} == {500}
    assert [error.args for error in raised.value.exceptions] == [("one",), ("other",)]


def test_errors_are_notes_of_the_tests_own_exception() -> None:
    with pytest.raises(httpx.HTTPStatusError) as raised, serving(Service(fails)) as url:
        httpx.get(f"{url}/fails/it").raise_for_status()
    (note,) = raised.value.__notes__
    assert note.startswith("the server failed during the block:\nTraceback")
    assert note.endswith("KeyError: 'it'")


def test_a_test_of_the_500_itself() -> None:
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


def test_what_cannot_be_closed_is_raised_too() -> None:
    with pytest.raises(OSError, match="cannot be closed"), serving(Service(uses, unclosable)) as url:
        assert httpx.get(f"{url}/uses").text == "1"
    with serving(Service(uses, unclosable), raise_errors=False) as url:
        assert httpx.get(f"{url}/uses").text == "1"


def test_each_server_has_its_own() -> None:
    with serving(Service(faulty.io)) as one, pytest.raises(KeyError), serving(Service(fails)) as other:
        assert (httpx.get(f"{one}/io/1").status_code, httpx.get(f"{other}/fails/it").status_code) == (200, 500)
