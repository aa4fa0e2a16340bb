"""A service with two replicas, each a process: restarted one by one, stopped, gone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from chains import Chain, chain_of_three, problem_of, wait_until_dead
from system import wait_until

CALLERS = 4


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """The first service calls two replicas of the third, `third` and `other`."""
    with chain_of_three(tmp_path) as chain:
        other = chain.start("third", as_name="other")
        addresses = {name: each.url for name, each in chain.running.items()}
        services = f"chain_second={addresses['second']} chain_third={addresses['third']},{other.url}"
        chain.start("first", "--services", services)
        yield chain


class Load:
    """Threads that ask all the time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_over = False
        self.responses: list[httpx.Response] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(CALLERS)]

    def _ask(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._is_over:
                self.responses.append(client.get(self._url))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 50) -> None:
        """Wait for so many further responses."""
        goal = len(self.responses) + count
        wait_until(lambda: len(self.responses) >= goal, f"{goal} responses")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def pid_of_third(chain: Chain) -> int:
    response = httpx.get(f"{chain.url}/pid-of-third", timeout=30)
    assert response.status_code == 200, response.text
    return int(response.text)


def test_rolling_restart_under_load_fails_no_call(chain: Chain) -> None:
    with Load(f"{chain.url}/pid-of-third") as load:
        load.more()
        for name in ("third", "other", "third"):
            replica = chain.running[name]
            replica.process.terminate()
            assert replica.process.wait(20) == 0
            load.more()
            new = chain.start("third", port=port_of(replica.url), as_name=name)
            wait_until(lambda pid=new.pid: str(pid) in {each.text for each in load.responses}, f"{new.pid} is called")
    assert {each.status_code for each in load.responses} == {200}


def test_stopped_replica_is_avoided(chain: Chain) -> None:
    """It keeps its connections and does not respond; calls that are sent to it end with their budget."""
    stopped, healthy = chain.running["third"], chain.running["other"]
    wait_until(lambda: pid_of_third(chain) == stopped.pid, "the replica is called")
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        in_a_row = 0
        while in_a_row < 50:
            response = httpx.get(f"{chain.url}/pid-of-third", headers={"request-timeout": "300ms"}, timeout=30)
            if response.status_code == 200:
                assert int(response.text) == healthy.pid
                in_a_row += 1
            else:
                assert problem_of(response) == (504, "budget-exhausted")
                in_a_row = 0
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    wait_until(lambda: pid_of_third(chain) == stopped.pid, "the replica is called again")


def test_all_replicas_out_is_503_at_once_until_one_is_back(chain: Chain) -> None:
    port = port_of(chain.running["third"].url)
    for name in ("third", "other"):
        chain.kill(name)
    for _ in range(5):
        response = httpx.get(f"{chain.url}/pid-of-third", timeout=30)
        assert problem_of(response) == (503, "call-unavailable")
        assert int(response.headers["retry-after"]) >= 1
    new = chain.start("third", port=port)
    wait_until(lambda: httpx.get(f"{chain.url}/pid-of-third", timeout=30).text == str(new.pid), "the new one is called")


def test_loser_of_a_hedge_is_killed(chain: Chain) -> None:
    """The job of the first attempt never ends; that of the second one ends when both run."""
    response = chain.post("/hedged?key=a")
    assert response.text == "a"
    wait_until_dead(int(chain.marked("a.loser")))
