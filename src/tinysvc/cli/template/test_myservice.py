"""Handlers as functions; then the service over HTTP: a real server, real workers."""

from collections.abc import Iterator

import httpx
import pytest
from tinysvc.testing import serving

import myservice


def test_a_handler_is_a_function() -> None:
    answer = myservice.score(myservice.Text("rude but kind"), myservice.model())
    assert answer == myservice.Score(words=3, score=0.0)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(myservice) as url, httpx.Client(base_url=url) as client:
        yield client


def test_hello(client: httpx.Client) -> None:
    assert client.get("/hello/Ada").text == "hello Ada"


def test_score(client: httpx.Client) -> None:
    answer = client.post("/score", json={"text": "Good day"})
    assert (answer.status_code, answer.json()) == (200, {"words": 2, "score": 0.5})


def test_what_is_wrong_is_said(client: httpx.Client) -> None:
    answer = client.post("/score", json={"text": 1})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["place"] == "$.text"
