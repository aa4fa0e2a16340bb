"""Starlette: $ROUTES routes, each with a parameter."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def find(request: Request) -> JSONResponse:
    return JSONResponse({"item": request.path_params["item"]})


PATHS = [f"/part{number}/items/{{item:int}}" for number in range(int(os.environ["ROUTES"]))]
app = Starlette(routes=[Route(path, find) for path in PATHS])
