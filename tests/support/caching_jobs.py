"""Cached cpu routes (test_caching.py). Each run leaves a file, so that the test knows how often they ran."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from tinysvc import (
    ApiKey,
    Batch,
    Bearer,
    Cache,
    Cookie,
    Header,
    HTTPError,
    Request,
    Response,
    cpu_route,
    io_resource,
)

FOLDER = Path(os.environ.get("CACHING_JOBS_FOLDER", "/nonexistent"))


def ran() -> int:
    """Leaves a trace, and returns how many there are."""
    (FOLDER / uuid.uuid4().hex).touch()
    return len(list(FOLDER.iterdir()))


@cpu_route("/number/{name}", methods=["GET", "POST"], cache=60)
def number(name: str, body: bytes = b"", q: str = "") -> int:
    return ran()


@cpu_route("/brief", cache=0.05)
def brief() -> int:
    return ran()


@cpu_route("/by-header", cache=Cache(60, headers=["X-Tenant"]))
def by_header(request: Request, accept_language: Annotated[str, Header()] = "") -> int:
    return ran()


@cpu_route("/by-cookie", cache=60)
def by_cookie(user: Annotated[str, Cookie()] = "") -> int:
    return ran()


@io_resource
async def session_user(session: Annotated[str, Cookie()]) -> str:
    return "user of " + session


@io_resource
async def user(session_user: str) -> str:
    return session_user


@io_resource
async def partner(key: Annotated[str, ApiKey("x-api-key")]) -> str:
    return "partner " + key


@io_resource
async def token_user(token: Annotated[str, Bearer()]) -> str:
    return "user of " + token


@io_resource
async def visitor(request: Request) -> str:
    return request.headers.get("x-visitor", "")


@cpu_route("/by-user", cache=60)
def by_user(user: str) -> str:
    return user


@cpu_route("/by-partner", cache=60)
def by_partner(partner: str) -> str:
    return partner


@cpu_route("/by-token", cache=60)
def by_token(token_user: str) -> str:
    return token_user


@cpu_route("/public-by-token", cache=60)
def public_by_token(token: Annotated[str, Bearer()]) -> Response:
    return Response(token, headers={"cache-control": "public, max-age=5"})


@cpu_route("/by-visitor", cache=60)
def by_visitor(visitor: str) -> str:
    return visitor


@cpu_route("/gated/{name}", cache=60)
def gated(name: str) -> int:
    count = ran()
    while not (FOLDER / name).exists():
        time.sleep(0.005)
    return count


@cpu_route("/answers/{kind}", cache=60)
def answers(kind: str) -> Any:
    count = ran()
    made: dict[str, Any] = {
        "error": lambda: Response(str(count), 404),
        "cookie": lambda: Response(str(count), headers={"set-cookie": "a=b"}),
        "private": lambda: Response(str(count), headers={"cache-control": "private, max-age=9"}),
        "no-store": lambda: Response(str(count), headers={"cache-control": "no-store"}),
        "stream": lambda: Response(iter([str(count)])),
        "public-cookie": lambda: Response(
            str(count), headers={"set-cookie": "a=b", "cache-control": "public, s-maxage=9, max-age=5"}
        ),
        "own": lambda: Response(str(count), 201, headers={"cache-control": "public, max-age=5", "x-a": "b"}),
        "big": lambda: f"{count} " + "x" * 1_000_000,
        "none": lambda: None,
    }
    if kind == "raises":
        raise HTTPError(409, str(count))
    if kind == "fails":
        raise RuntimeError(str(count))
    return made[kind]()


@cpu_route("/batched", cache=60, batch=Batch(4))
def batched(n: list[int]) -> list[int]:
    ran()
    return n


def streaming() -> Iterator[int]:
    yield 1
