"""Functions that are built line by line."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from tinysvc.grpc.function_source import MAX_LINES, FunctionSource, Unfit, attribute


def test_function_has_its_lines_and_constants() -> None:
    source = FunctionSource("items")
    found, each, seven = source.variable(), source.variable(), source.constant(7)
    source.add(f"{found} = []")
    with source.block(f"for {each} in items:"):
        source.add(f"{found}.append({each} + {seven})")
    assert source.function(f"tuple({found})")([1, 2]) == (8, 9)


def test_lines_are_taken_back_with_the_block_that_they_are_in() -> None:
    source = FunctionSource("x")
    with suppress(Unfit), source.all_or_nothing(), source.block("if x:"):
        source.add("return 1")
        raise Unfit
    source.add("x += 1")
    assert source.function("x")(1) == 2


def test_function_without_end_is_refused() -> None:
    source = FunctionSource("x")
    for _ in range(MAX_LINES - 1):
        source.add("x += 1")
    with pytest.raises(Unfit):
        source.add("x += 1")


def test_class_that_contains_itself_is_refused() -> None:
    source = FunctionSource("x")
    with source.inside(int):
        with source.inside(str):
            pass
        with source.inside(str), pytest.raises(Unfit), source.inside(int):
            pass


def test_more_loops_inside_each_other_than_python_takes_are_refused() -> None:
    source = FunctionSource("x")
    with ExitStack() as blocks:
        for _ in range(60):
            blocks.enter_context(source.block("for _ in x:"))
        source.add("pass")
    with pytest.raises(Unfit):
        source.function("x")


def test_attribute_whose_name_is_a_keyword() -> None:
    assert attribute("x", "real") == "x.real"
    assert attribute("x", "class") == "getattr(x, 'class')"
