"""Starlette: $ROUTES routes, each with a parameter; JSON by orjson."""

import os

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def find(request: Request) -> Response:
    return Response(orjson.dumps({"item": request.path_params["item"]}), media_type="application/json")


PATHS = [f"/part{number}/items/{{item:int}}" for number in range(int(os.environ["ROUTES"]))]
app = Starlette(routes=[Route(path, find) for path in PATHS])
