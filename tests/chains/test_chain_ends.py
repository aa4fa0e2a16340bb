"""A chain of three services loses its client, one of its services, or its time: the job at its end is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from chains import Chain, chain_of_three, problem_of, wait_until_dead
from system import is_alive


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with chain_of_three(tmp_path) as chain:
        yield chain


BUDGET = "Request-Timeout: 1m"


def test_disconnect_kills_the_job_three_services_away(chain: Chain) -> None:
    """The job is in C code and ignores signals."""
    for key, request in (("a", ("GET",)), ("b", ("POST", BUDGET))):
        with chain.asking(f"/stuck?key={key}", *request):
            worker = int(chain.marked(key))
            assert is_alive(worker)
        wait_until_dead(worker)
    assert chain.post("/quick?key=c", "third").text == "c"  # the worker was replaced


def test_disconnect_ends_the_stream_three_services_away(chain: Chain) -> None:
    with chain.asking("/numbers?key=a") as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        assert int(chain.marked("a")) > 0
        assert not chain.is_marked("a.closed")
    chain.marked("a.closed")


@pytest.mark.parametrize("service", ["first", "second"])
def test_sigkill_of_a_caller_kills_the_job(chain: Chain, service: str) -> None:
    with chain.asking("/stuck?key=a"):
        worker = int(chain.marked("a"))
        chain.kill(service)
        wait_until_dead(worker)


def test_callee_killed_before_its_answer_is_a_502(chain: Chain) -> None:
    with chain.asking("/stuck?key=a") as client:
        worker = int(chain.marked("a"))
        chain.kill("third")
        assert client.recv(100).startswith(b"HTTP/1.1 502 ")
    wait_until_dead(worker)


def test_callee_killed_in_a_stream_never_gives_a_whole_result(chain: Chain) -> None:
    with httpx.stream("POST", f"{chain.url}/numbers?key=a", timeout=30) as response:
        pieces = response.iter_raw()
        assert next(pieces).startswith(b"0\n")
        chain.kill("third")
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)


def test_budget_that_ends_kills_the_job_three_services_away(chain: Chain) -> None:
    assert problem_of(chain.post("/in-time?key=a&seconds=1.0")) == (504, "budget-exhausted")
    wait_until_dead(int(chain.marked("a")))


def test_budget_that_ends_in_the_queue_starts_nothing(chain: Chain) -> None:
    """The third service has one worker, and another job holds it."""
    with chain.asking("/stuck?key=holder", "GET"):
        worker = int(chain.marked("holder"))
        response = chain.post("/in-time?key=a&seconds=0.3")
        assert problem_of(response) == (504, "budget-exhausted")
        assert "retry-after" not in response.headers
    wait_until_dead(worker)
    assert chain.post("/quick?key=b", "third").text == "b"
    assert not chain.is_marked("a")
