"""A service with job routes that others submit to: test_submit.py does so here, and over the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinysvc import Header, HTTPError, Job, Request, Response, io_resource, job_route


@dataclass
class Recipe:
    epochs: int
    name: str = ""


@dataclass
class Summary:
    loss: float
    name: str


@job_route("/trainings")
def train(recipe: Recipe, job: Job) -> Summary:
    return Summary(1 / recipe.epochs, recipe.name)


@job_route("/labels/{name}")
def label(name: str, size: int = 1, team: Annotated[str, Header("X-Team")] = "") -> str:
    return f"{name} {size} {team}"


@job_route("/options")
def options(after: str, key: str) -> str:
    return f"{after} {key}"


@job_route("/teapots")
def teapot() -> None:
    raise HTTPError(418, "It is a teapot.")


@job_route("/broken")
def broken() -> None:
    raise RuntimeError("secret")


@io_resource
async def user(request: Request) -> str:
    if request.headers.get("authorization") != "Bearer ada":
        raise HTTPError(401, "Who are you?")
    return "ada"


@job_route("/guarded")
def guarded(user: str) -> str:
    return user


@job_route("/raw")
def raw() -> Response:
    return Response(b"made", 201, {"x-own": "1"})
