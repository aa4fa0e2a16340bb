"""thread_calls.py: a thread of a handler may wait for a call; code on the event loop and other threads may not."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import called_app as app
from http_ends import on_loop
from tinysvc import ConfigurationError, HTTPError, Service, call
from tinysvc.core.settings import Settings
from tinysvc.core.threads import in_thread
from tinysvc.runtime.running_service import at_work

HANDLERS = Service(app.moved, app.factor, app.raises, app.sized)


@on_loop
async def test_thread_gets_the_result_and_the_errors() -> None:
    async with at_work(HANDLERS, Settings()):
        assert await in_thread(lambda: call.wait(app.moved, app.Point(1))) == app.Point(2, 0, ["moved"])
        with pytest.raises(HTTPError, match="There is no such thing"):
            await in_thread(lambda: call.wait(app.raises, "404"))
        with pytest.raises(TypeError, match="missing arguments: point"):
            await in_thread(lambda: call.wait(app.moved))


@on_loop
async def test_other_code_is_told_what_to_write() -> None:
    async with at_work(HANDLERS, Settings()):
        with pytest.raises(ConfigurationError, match="write `await call"):
            call.wait(app.moved, app.Point(1))
        errors: list[Any] = []

        def other() -> None:
            try:
                call.wait(app.moved, app.Point(1))
            except ConfigurationError as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(errors) == 1


@on_loop
async def test_runtime_error_of_the_call_is_passed_on() -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("own")

    async with at_work(HANDLERS, Settings()):
        with pytest.raises(RuntimeError, match="own"):
            await in_thread(lambda: call.wait(app.sized, body=broken))
