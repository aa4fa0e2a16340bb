"""Fixtures of pytest, found by the entry point: tests need not import them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest


@pytest.fixture
def tinysvc_serve() -> Iterator[Callable[..., str]]:
    """Fixture of pytest: a function that serves until the test ends. Its arguments are those of `serving`.

    Yields:
        The function: it returns the base URL of the server.

    Example:
        ```python
        def test_hello(tinysvc_serve):
            url = tinysvc_serve("hello.py", cpu_workers=1)
            assert url.startswith("http://127.0.0.1:")
        ```
    """
    yield from _serve()


@pytest.fixture(scope="module")
def tinysvc_serve_module() -> Iterator[Callable[..., str]]:
    """Fixture of pytest, like `tinysvc_serve`, that serves until the last test of the module ends.

    Yields:
        The function: it returns the base URL of the server.

    Example:
        ```python
        import pytest

        @pytest.fixture(scope="module")
        def url(tinysvc_serve_module):
            return tinysvc_serve_module("hello.py")
        ```
    """
    yield from _serve()


def _serve() -> Iterator[Callable[..., str]]:
    from tinysvc.testing import serving  # imported only by tests that serve

    with ExitStack() as stack:
        yield lambda target, **options: stack.enter_context(serving(target, **options))
