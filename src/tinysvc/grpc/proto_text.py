"""The text of a .proto file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from .proto_file import ProtoEnum, ProtoField, ProtoFile, ProtoMessage, ProtoMethod
from .shapes import Reserved

WIDTH = 100
"""Characters of a comment."""


def text_of(file: ProtoFile, command: str = "") -> str:
    """The text of a file.

    Args:
        file: The file.
        command: The command that prints it, for its first comment.
    """
    parts = [
        *([_head(command)] if command else []),
        'syntax = "proto3";',
        f"package {file.package};",
        *(["\n".join(f'import "{each}";' for each in file.imports())] if file.imports() else []),
        *(_service(name, methods, file.package) for name, methods in file.services.items()),
        *map(_message, file.messages.values()),
        *map(_enum, file.enums.values()),
    ]
    return "\n\n".join(parts) + "\n"


def _head(command: str) -> str:
    return (
        f"// Printed by: {command}\n"
        "// tinysvc reads the numbers of the fields from this file: commit it, and print it again after a change."
    )


def _block(head: str, lines: Iterable[str], about: str = "") -> str:
    inside = [f"  {line}" for line in lines]
    whole = "\n".join([f"{head} {{", *inside, "}"]) if inside else f"{head} {{}}"
    return f"{comment(about)}{whole}"


def comment(about: str, indent: str = "") -> str:
    """One line as a comment, with its line end; "" for nothing."""
    return f"{indent}// {about[:WIDTH].strip()}\n" if about.strip() else ""


def _service(name: str, methods: Mapping[str, ProtoMethod], package: str) -> str:
    def typed(message: str, *, streams: bool) -> str:
        if message in methods:
            message = f".{package}.{message}"  # inside of the service a method hides a message of the same name
        return f"stream {message}" if streams else message

    lines = []
    for method in methods.values():
        request = typed(method.request, streams=method.client_streams)
        reply = typed(method.reply, streams=method.server_streams)
        about = f"{comment(method.about)}{'  ' if method.about.strip() else ''}"
        lines.append(f"{about}rpc {method.name}({request}) returns ({reply});")
    return _block(f"service {name}", lines)


def _message(message: ProtoMessage) -> str:
    return _block(f"message {message.name}", _lines(message), message.about)


def _lines(message: ProtoMessage) -> Iterator[str]:
    yield from reserved_lines(message.reserved)
    for oneof, fields in groupby(message.fields, key=lambda each: each.oneof):
        lines = map(_field, fields)
        if oneof:
            yield f"oneof {oneof} {{"
            yield from (f"  {line}" for line in lines)
            yield "}"
        else:
            yield from lines


def _field(field: ProtoField) -> str:
    label = "optional " if field.label == "optional" else ""
    return f"{label}{field.whole_type} {field.name} = {field.number};"


def _enum(enum: ProtoEnum) -> str:
    lines = [*reserved_lines(enum.reserved), *(f"{name} = {number};" for name, number in enum.values.items())]
    return _block(f"enum {enum.name}", lines, enum.about)


def reserved_lines(reserved: Reserved) -> Iterator[str]:
    """The numbers and names of removed fields."""
    if reserved.numbers:
        ranges = [str(first) if first == last else f"{first} to {last}" for first, last in ranges_of(reserved.numbers)]
        yield f"reserved {', '.join(ranges)};"
    if reserved.names:
        names = ", ".join(f'"{each}"' for each in sorted(reserved.names))
        yield f"reserved {names};"


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The numbers as ranges, each with its last number."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
