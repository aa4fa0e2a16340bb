"""pytest_plugin.py: pytest finds the fixture through the entry point."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

import faulty
from tinysvc import Service

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_fixture_serves(tinysvc_serve: Callable[..., str]) -> None:
    url = tinysvc_serve(Service(faulty.cpu), cpu_workers=1)
    assert httpx.get(f"{url}/cpu/1").status_code == 200


@pytest.mark.asyncio
async def test_fixture_serves_in_an_asynchronous_test(tinysvc_serve: Callable[..., str]) -> None:
    async with httpx.AsyncClient(base_url=tinysvc_serve(Service(faulty.io))) as client:
        assert (await client.get("/io/1")).json() == {"number": 1}
