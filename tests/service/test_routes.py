"""routes.py: records are kept on their functions."""

from __future__ import annotations

import types

from tinysvc.service.routes import Route, recorded, unreachable


def test_function_without_records() -> None:
    assert recorded(len) == []
    assert recorded("text") == []


def test_timeout_of_a_route() -> None:
    def handler() -> None: ...

    def timeout_of(timeout: float | None) -> float | None:
        return Route(path="/", methods=("GET",), function=handler, kind="cpu", timeout=timeout).timeout_or(30)

    assert [timeout_of(None), timeout_of(0), timeout_of(2)] == [30, None, 2]


def test_function_whose_name_is_reused_is_unreachable() -> None:
    module = types.ModuleType("reused")
    exec(  # as the import of a module does
        "from tinysvc import io_route\n"
        "@io_route('/a')\ndef handler(): pass\n"
        "first = handler\ndel first\n"
        "@io_route('/b')\ndef handler(): pass\n",
        vars(module),
    )
    (found,) = unreachable(module)
    assert [record.path for record in recorded(found) if isinstance(record, Route)] == ["/a"]
