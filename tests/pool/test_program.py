"""program.py: the program of a pool that only calls functions."""

from __future__ import annotations

import pytest

from tinysvc.pool.program import call_each, function_program


def test_function_program_calls_its_initializer_once() -> None:
    calls: list[int] = []
    with function_program(calls.append, (7,)):
        assert calls == [7]


def test_function_program_refuses_program_jobs() -> None:
    with function_program() as run_job, pytest.raises(TypeError, match=r"use run\(\) or submit\(\)"):
        run_job(None, b"")


def test_call_each_calls_the_function_with_each_tuple() -> None:
    assert call_each(pow, [(2, 3), (3, 2)]) == [8, 9]
