"""protoc accepts what is printed, makes the same descriptor of it, and its messages are the same bytes."""

from __future__ import annotations

import importlib.util
import itertools
import os
from pathlib import Path
from typing import Any

import grpc_tools
import msgspec
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from rpc_cases import handler_of, proto_of, schema_of
from rpc_types import Typed, types
from tinysvc.grpc.message_classes import message_class
from tinysvc.grpc.proto_parser import parse_proto
from tinysvc.grpc.rpc_schema import RpcSchema

_number = itertools.count()


def compiled(schema: RpcSchema, folder: Path) -> tuple[descriptor_pb2.FileDescriptorProto, Any]:
    """What protoc makes of the printed file: its descriptor, and the module with the message classes."""
    (file,) = schema.proto_files
    path = folder / f"{file.package}.proto"
    path.write_text(proto_of(schema))
    include = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(
        ["", f"-I{folder}", f"-I{include}", f"--descriptor_set_out={folder}/set", f"--python_out={folder}", str(path)]
    )
    assert status == 0, proto_of(schema)
    found = descriptor_pb2.FileDescriptorSet.FromString((folder / "set").read_bytes())
    spec = importlib.util.spec_from_file_location(f"{file.package}_pb2", folder / f"{file.package}_pb2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return found.file[0], module


@settings(
    max_examples=int(os.environ.get("GRPC_EXAMPLES", "20")),
    deadline=None,
    phases=[Phase.generate],  # a smaller example is worth less than the minutes for it
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_random_types_are_the_same_to_protoc(data: st.DataObject, tmp_path: Path) -> None:
    parameter: Typed = data.draw(types)
    result: Typed = data.draw(types)
    assume(is_readable(parameter.kind) and is_readable(result.kind))
    schema = schema_of(handler_of(parameter.kind, result=result.kind), name=f"protoc{next(_number)}")
    descriptor, module = compiled(schema, tmp_path)
    ours = descriptor_pb2.FileDescriptorSet.FromString(schema.file_descriptor_set).file[-1]
    assert str(descriptor).splitlines() == str(ours).splitlines()
    (file,) = schema.proto_files
    assert parse_proto(proto_of(schema), "file") == file
    codec = schema.methods[0].codec
    for _ in range(3):
        value = data.draw(parameter.values)
        encoded = codec.encode_arguments({"value": value})
        assert codec.decode_arguments(encoded) == {"value": value}
        assert same_bytes(schema, module, "HandleRequest", encoded)
        returned = data.draw(result.values)
        assert codec.decode_result(codec.encode_result(returned)) == returned


def is_readable(kind: Any) -> bool:
    """Whether msgspec reads the type: not a union with two texts, for example."""
    try:
        msgspec.json.Decoder(kind)
    except TypeError:
        return False
    return True


def same_bytes(schema: RpcSchema, module: Any, message: str, encoded: bytes) -> bool:
    (file,) = schema.proto_files
    own = message_class(schema.file_descriptor_set, f"{file.package}.{message}").FromString(encoded)
    theirs = getattr(module, message).FromString(encoded)
    again = theirs.SerializeToString(deterministic=True)
    return bool(again == own.SerializeToString(deterministic=True)) and len(again) == len(encoded)
