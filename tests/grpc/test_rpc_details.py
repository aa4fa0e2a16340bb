"""rpc_details.py: the messages of google.rpc are those of Google's own files."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2

from tinysvc.grpc.message_classes import with_imports
from tinysvc.grpc.rpc_details import detail_files


def fields_of(message: Descriptor) -> dict[str, tuple[object, ...]]:
    return {
        field.name: (field.number, field.type, field.is_repeated, field.message_type and field.message_type.full_name)
        for field in message.fields
    }


def test_messages_have_the_fields_of_googles_files() -> None:
    pool = DescriptorPool()
    for file in with_imports(detail_files()):
        pool.AddSerializedFile(file)
    for module in (status_pb2, error_details_pb2):
        ours = pool.FindFileByName(module.DESCRIPTOR.name)
        for name, message in ours.message_types_by_name.items():
            known = module.DESCRIPTOR.message_types_by_name[name]
            for made, wanted in [(message, known), *zip(message.nested_types, known.nested_types, strict=True)]:
                assert fields_of(made).items() <= fields_of(wanted).items()
