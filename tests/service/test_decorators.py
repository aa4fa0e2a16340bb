"""decorators.py: each decorator records a route or resource."""

from __future__ import annotations

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.service.decorators import cpu_resource, cpu_route, io_route
from tinysvc.service.routes import Batch, Resource, Route, recorded


def test_decorators_record_and_may_be_stacked() -> None:
    @io_route("/a")
    @io_route("/b", methods=["post", "PUT"])
    def both() -> None: ...

    routes = [record for record in recorded(both) if isinstance(record, Route)]
    assert [(route.path, route.methods) for route in routes] == [("/b", ("POST", "PUT")), ("/a", ("GET",))]


def test_pool_limit_and_batch_are_recorded() -> None:
    def plain() -> None: ...

    cpu_route("/a", pool="training", limit=2, batch=Batch(8, 0))(plain)
    cpu_route("/b")(plain)
    a, b = (record for record in recorded(plain) if isinstance(record, Route))
    assert (a.pool, a.limit, a.batch) == ("training", 2, Batch(size=8, wait=0))
    assert (b.pool, b.limit, b.batch) == ("default", None, None)


def test_cpu_resource_is_shared_or_not() -> None:
    def plain() -> int:
        return 1

    def shared() -> int:
        return 2

    assert cpu_resource(plain) is plain
    assert cpu_resource(shared=True)(shared) is shared
    (a,), (b,) = recorded(plain), recorded(shared)
    assert isinstance(a, Resource)
    assert isinstance(b, Resource)
    assert (a.kind, a.shared, b.kind, b.shared) == ("cpu", False, "cpu", True)
    with pytest.raises(ConfigurationError, match=r"plain .*shared must be True or False, not 'yes'"):
        cpu_resource(shared="yes")(plain)  # type: ignore[call-overload]
