"""callbacks.py: all functions are called, whatever one of them does."""

from __future__ import annotations

import logging

import pytest

from tinysvc.jobs.callbacks import Callbacks


def test_functions_are_called_in_order_until_they_are_removed() -> None:
    callbacks: Callbacks[int] = Callbacks()
    called: list[tuple[str, int]] = []
    remove = callbacks.add(lambda value: called.append(("a", value)))
    callbacks.add(lambda value: called.append(("b", value)))
    callbacks.call(1)
    remove()
    remove()
    callbacks.call(2)
    assert called == [("a", 1), ("b", 1), ("b", 2)]


def test_function_that_is_added_twice_is_removed_once() -> None:
    callbacks: Callbacks[int] = Callbacks()
    called: list[int] = []
    remove = callbacks.add(called.append)
    callbacks.add(called.append)
    remove()
    callbacks.call(1)
    assert called == [1]


def test_function_may_remove_itself_while_it_is_called() -> None:
    callbacks: Callbacks[int] = Callbacks()
    called: list[int] = []
    remove = callbacks.add(lambda value: remove())
    callbacks.add(called.append)
    callbacks.call(1)
    callbacks.call(2)
    assert called == [1, 2]


def test_failing_function_is_logged_and_the_next_one_is_called(caplog: pytest.LogCaptureFixture) -> None:
    callbacks: Callbacks[int] = Callbacks()
    called: list[int] = []
    callbacks.add(lambda value: 1 // value)
    callbacks.add(called.append)
    with caplog.at_level(logging.ERROR, "tinysvc.jobs"):
        callbacks.call(0)
    assert called == [0]
    assert "ZeroDivisionError" in caplog.text
