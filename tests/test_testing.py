"""testing.py: a real server for synchronous tests."""

from __future__ import annotations

import httpx
import pytest

import faulty
from tinysvc import ConfigurationError, Service, cpu_route
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


def test_an_error_of_the_test_is_the_tests() -> None:
    with pytest.raises(ZeroDivisionError), serving(Service(faulty.io)):
        1 / 0  # noqa: B018
