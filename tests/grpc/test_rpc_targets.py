"""rpc_targets.py: the path and the query that a message stands for."""

from __future__ import annotations

import pytest

import rpc_app
from tinysvc import Handler, Request, Response, Service
from tinysvc.core.errors import BindingError
from tinysvc.grpc.rpc_targets import Fill, target_filler
from tinysvc.grpc.schema_of import schema_of
from tinysvc.runtime.messages import Messages
from tinysvc.service.plan import plans_of


async def passing(request: Request, call_next: Handler) -> Response:
    return await call_next(request)


def filler(service: Service, **arguments: object) -> tuple[Fill | None, bytes]:
    (method,) = schema_of(plans_of(service)).methods
    return target_filler(method.plan, Messages(method.codec)), method.codec.encode_arguments(arguments)


def test_nothing_is_filled_where_nothing_reads_it() -> None:
    assert filler(Service(rpc_app.hello), name="Ada")[0] is None
    assert filler(Service(rpc_app.item, middleware=[passing]), item=rpc_app.Item("pen"))[0] is None


def test_middleware_sees_the_whole_path() -> None:
    fill, message = filler(Service(rpc_app.hello, prefix="/v1", middleware=[passing]), name="a b/c", times=2)
    assert fill is not None
    request = Request("POST", "/v1/hello/{name}")
    fill(request, message)
    assert (request.raw_path, request.query) == ("/v1/hello/a%20b%2Fc", {"times": ["2"]})
    assert request.path_params == {"name": "a b/c"}


def test_resource_of_the_request_reads_the_query() -> None:
    fill, message = filler(Service(rpc_app.orders, rpc_app.tenant), shop="corner", count=2)
    assert fill is not None
    request = Request("POST", "/orders")
    fill(request, message)
    assert request.query["shop"] == ["corner"]


def test_value_that_cannot_stand_in_a_path_is_refused() -> None:
    fill, message = filler(Service(rpc_app.seen_path), name="..")
    assert fill is not None
    with pytest.raises(BindingError, match="path segment"):
        fill(Request("POST", "/seen/{name}"), message)


def test_nul_cannot_stand_in_a_query() -> None:
    fill, message = filler(Service(rpc_app.orders, rpc_app.tenant), shop="a\0b", count=2)
    assert fill is not None
    with pytest.raises(BindingError, match="control character"):
        fill(Request("POST", "/orders"), message)
