"""The gRPC services of a service: one for each module, with the file beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2

from rpc_cases import proto_of
from tinysvc import ConfigurationError, Service
from tinysvc.grpc.schema_of import schema_of, schema_of_function
from tinysvc.server.loading import load_service
from tinysvc.service.plan import plans_of

ORDERS = """
from tinysvc import io_route

@io_route("/orders/{number}")
async def order(number: int, note: str = "") -> str:
    return note
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ModuleType]:
    monkeypatch.syspath_prepend(tmp_path)
    names = ["rpc_orders", "rpc_users"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(ORDERS)
        monkeypatch.delitem(sys.modules, name, raising=False)
    services = [load_service(str(tmp_path / f"{name}.py")) for name in names]
    assert all(services)
    found = [sys.modules[name] for name in names]
    for name in names:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    return found


def test_each_module_has_its_own_service_wherever_it_is_mounted(modules: list[ModuleType]) -> None:
    service = Service(*[Service(module, prefix=f"/{number}") for number, module in enumerate(modules)], name="all")
    schema = schema_of(list(plans_of(service)))
    assert [each.path for each in schema.methods] == ["/rpc_orders.RpcOrders/Order", "/rpc_users.RpcUsers/Order"]
    files = descriptor_pb2.FileDescriptorSet.FromString(schema.file_descriptor_set).file
    assert [each.name for each in files] == ["rpc_orders.proto", "rpc_users.proto"]
    (note,) = schema.notes
    assert note.startswith("there is no rpc_orders.proto, rpc_users.proto: the fields")


def test_file_beside_the_module_is_read(modules: list[ModuleType], tmp_path: Path) -> None:
    lock = 'syntax = "proto3"; package rpc_orders; message OrderRequest { int64 number = 7; string note = 3; }'
    (tmp_path / "rpc_orders.proto").write_text(lock)
    schema = schema_of_function(modules[0].order)
    assert "int64 number = 7;" in proto_of(schema)
    assert proto_of(schema) == proto_of(schema_of(list(plans_of(Service(modules[0])))))
    (tmp_path / "rpc_orders.proto").write_text("syntax")
    with pytest.raises(ConfigurationError, match=r"rpc_orders.proto, line 1"):
        schema_of_function(modules[0].order)


def test_file_that_cannot_be_read_stops_the_start(modules: list[ModuleType], tmp_path: Path) -> None:
    (tmp_path / "rpc_orders.proto").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"rpc_orders.proto cannot be read"):
        schema_of_function(modules[0].order)
