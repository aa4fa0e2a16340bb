"""A service that submits handlers in each way in which code can name them: test_call_checks.py reads it."""

from __future__ import annotations

import called_app
import submitted_app
import tinysvc
from tinysvc import io_route, submit


@io_route("/submits")
async def submits() -> str:
    return (await submit(submitted_app.raw)).url


@io_route("/forwards")
async def forwards() -> str:
    return (await tinysvc.submit.forwarding("authorization")(submitted_app.guarded)).url


@io_route("/wrong")
async def wrong() -> str:
    return (await submit(called_app.row, {})).url
