"""The message classes of descriptors. Nothing is generated on disk.

Each service has a pool of descriptors of its own, so that two services may have messages of one name.

The library is imported for the first class: a server without calls, or whose workers read and write all messages, does
without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..core.proto_bytes import bytes_field, read_fields

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool


def file_set(files: Iterable[bytes]) -> bytes:
    """These descriptors as a FileDescriptorSet."""
    return b"".join(bytes_field(1, each) for each in files)


def files_in(files: bytes) -> Iterator[bytes]:
    """The descriptors in a FileDescriptorSet."""
    return (each for _, each in read_fields(files) if isinstance(each, bytes))


def with_imports(files: Iterable[bytes]) -> list[bytes]:
    """These descriptors, behind those of the files that they import and protobuf brings along."""
    own = list(files)
    paths = {each.decode() for file in own for field, each in read_fields(file) if field == 3 and type(each) is bytes}
    return [*map(_brought, sorted(paths)), *own]


def _brought(path: str) -> bytes:
    module = import_module(path.replace("/", ".").removesuffix(".proto") + "_pb2")
    descriptor: bytes = module.DESCRIPTOR.serialized_pb
    return descriptor


@lru_cache(maxsize=32)
def pool_of(files: bytes) -> DescriptorPool:
    """A pool with the files of this FileDescriptorSet, and those that they import."""
    from google.protobuf.descriptor_pool import DescriptorPool

    pool = DescriptorPool()
    for file in with_imports(files_in(files)):
        pool.AddSerializedFile(file)
    return pool


def message_class(files: bytes, name: str) -> Any:
    """The class of the message with this full name."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(pool_of(files).FindMessageTypeByName(name))
