"""cpu handlers that call handlers of called_app.py by `call.wait`; the tests serve both in one or in two processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import called_app as app
from tinysvc import (
    BudgetExhausted,
    CallFailed,
    ConfigurationError,
    HTTPError,
    UploadFile,
    budget,
    call,
    cpu_route,
    io_route,
)

POOL = {"pool": "callers"}


@cpu_route("/move", methods=["POST"], **POOL)  # type: ignore[arg-type]
def move(point: app.Point) -> app.Point:
    return call.wait(app.moved, point, by=2)


@cpu_route("/cpu-move", methods=["POST"], **POOL)  # type: ignore[arg-type]
def cpu_move(point: app.Point) -> app.Point:
    return call.wait(app.cpu_moved, call.wait(app.cpu_moved, point))


@cpu_route("/reverse", methods=["POST"], **POOL)  # type: ignore[arg-type]
def reverse(body: bytes) -> bytes:
    return call.wait(app.raw, body)


@cpu_route("/forward", methods=["POST"], **POOL)  # type: ignore[arg-type]
def forward(photo: UploadFile) -> list[Any]:
    return call.wait(app.upload, "t", photo, [photo])


@cpu_route("/seen", **POOL)  # type: ignore[arg-type]
def seen() -> list[Any]:
    return [call.wait(app.context), call.forwarding("authorization").wait(app.context)]


@cpu_route("/fails/{how}", **POOL)  # type: ignore[arg-type]
def fails(how: str) -> list[Any]:
    try:
        call.wait(app.raises, how)
    except HTTPError as error:
        return [type(error).__name__, error.status, error.detail, error.problem()["status"]]
    except CallFailed as error:
        return [type(error).__name__, error.answered, error.service, getattr(error, "retry_after", None)]
    return []


@cpu_route("/unhandled", **POOL)  # type: ignore[arg-type]
def unhandled() -> None:
    call.wait(app.raises, "bug")


@io_route("/in-thread", methods=["POST"])
def in_thread(point: app.Point) -> app.Point:
    return call.wait(app.moved, point, by=2)


@io_route("/seen-in-thread")
def seen_in_thread() -> dict[str, Any]:
    return call.wait(app.context)


@io_route("/calls-unhandled")
async def calls_unhandled() -> Any:
    try:
        await call(unhandled)
    except CallFailed as error:
        return error.answered


@cpu_route("/short", methods=["POST"], **POOL)  # type: ignore[arg-type]
def short(path: str) -> float:
    start = time.monotonic()
    try:
        with budget(0.2):
            call.wait(app.slow, path)
    except BudgetExhausted:
        pass
    return time.monotonic() - start


@cpu_route("/long", methods=["POST"], **POOL)  # type: ignore[arg-type]
def long(path: str) -> None:
    call.wait(app.slow, path)


@cpu_route("/own", **POOL)  # type: ignore[arg-type]
def own() -> None:
    call.wait(harmless)


@io_route("/via")
async def via() -> int:
    return await call(harmless)


@cpu_route("/own-by-another", **POOL)  # type: ignore[arg-type]
def own_by_another() -> int:
    return call.wait(via)


@cpu_route("/harmless", **POOL)  # type: ignore[arg-type]
def harmless() -> int:
    return os.getpid()


@cpu_route("/odd", **POOL)  # type: ignore[arg-type]
def odd() -> list[str]:
    found = []
    for function in (app.counted, plain, app.raise_one):
        try:
            call.wait(function, 1)
        except (ConfigurationError, TypeError) as error:
            found.append(str(error))
    return found


def plain() -> None: ...


class Interrupted(Exception): ...


@cpu_route("/interrupted", methods=["POST"], **POOL)  # type: ignore[arg-type]
def interrupted(path: str, swallowed: bool) -> int:
    def interrupt(*_: object) -> None:
        raise Interrupted

    def interrupt_the_wait() -> None:
        while not Path(path).exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGALRM)

    signal.signal(signal.SIGALRM, interrupt)
    threading.Thread(target=interrupt_the_wait).start()
    try:
        call.wait(app.slow, path)
    except Interrupted:
        if not swallowed:
            raise
    return os.getpid()


@cpu_route("/dies", methods=["POST"], **POOL)  # type: ignore[arg-type]
def dies(path: str) -> None:
    Path(path).with_suffix(".pid").write_text(str(os.getpid()))
    call.wait(app.slow, path)
