"""The fixture of pytest: found by its entry point, so that no test need import it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest


@pytest.fixture
def tinysvc_serve() -> Iterator[Callable[..., str]]:
    """Serve services until the test ends, as in `url = tinysvc_serve(service)`: see tinysvc.testing.serving."""
    yield from _serve()


@pytest.fixture(scope="module")
def tinysvc_serve_module() -> Iterator[Callable[..., str]]:
    """The same until the last test of the module has ended: for fixtures of that scope."""
    yield from _serve()


def _serve() -> Iterator[Callable[..., str]]:
    from tinysvc.testing import serving  # only tests that serve pay for the import

    with ExitStack() as stack:
        yield lambda target, **options: stack.enter_context(serving(target, **options))
