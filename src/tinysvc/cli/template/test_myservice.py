"""Tests of a handler as a function, and of the service over HTTP with a real server and real workers."""

from collections.abc import Iterator

import httpx
import pytest
from tinysvc.testing import serving

import myservice


def test_handler_is_a_function() -> None:
    result = myservice.score(myservice.Text("rude but kind"), myservice.model())
    assert result == myservice.Score(words=3, score=0.0)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(myservice) as url, httpx.Client(base_url=url) as client:
        yield client


def test_hello(client: httpx.Client) -> None:
    assert client.get("/hello/Ada").text == "hello Ada"


def test_score(client: httpx.Client) -> None:
    response = client.post("/score", json={"text": "Good day"})
    assert (response.status_code, response.json()) == (200, {"words": 2, "score": 0.5})


def test_wrong_body_is_422_with_its_place(client: httpx.Client) -> None:
    response = client.post("/score", json={"text": 1})
    assert response.status_code == 422
    assert response.json()["errors"][0]["place"] == "$.text"
