"""Which changes of a .proto file break clients that were made from the file before: the table `RULES`.

The names are those of buf's rules where buf has the rule. Only what a client notices counts: what travels, the names in
JSON and in reflection, and a value that older clients cannot send. A removed field breaks no client if its number and
its name are reserved. All that buf refuses in its category WIRE_JSON is refused here, but for options of fields and
methods: tinysvc prints none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import NamedTuple

from .proto_file import ProtoFile, ProtoMessage, ProtoMethod

Check = Callable[[ProtoFile, ProtoFile], Iterator[str]]
"""The changes between two files, each as a sentence."""


class Rule(NamedTuple):
    """One kind of change that breaks clients."""

    name: str
    about: str
    """What must not change."""
    check: Check


class Break(NamedTuple):
    """One change that breaks clients."""

    rule: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.sentence} ({self.rule})"


def breaks_of(before: ProtoFile, after: ProtoFile) -> list[Break]:
    """All changes from one file to the other that break clients."""
    return [Break(rule.name, sentence) for rule in RULES for sentence in rule.check(before, after)]


def _methods(before: ProtoFile, after: ProtoFile) -> Iterator[tuple[str, ProtoMethod, ProtoMethod]]:
    for service, methods in before.services.items():
        for name, method in methods.items():
            if (now := after.services.get(service, {}).get(name)) is not None:
                yield f"{service}.{name}", method, now


def _messages(before: ProtoFile, after: ProtoFile) -> Iterator[tuple[ProtoMessage, ProtoMessage]]:
    for name, message in before.messages.items():
        if (now := after.messages.get(name)) is not None:
            yield message, now


def _package(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    if before.package != after.package:
        yield f"the package was {before.package}, and is {after.package}"


def _services(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    yield from (f"the service {name} is removed" for name in before.services if name not in after.services)


def _gone_methods(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for service, methods in before.services.items():
        now = after.services.get(service)
        if now is not None:
            yield from (f"the method {service}.{name} is removed" for name in methods if name not in now)


def _requests(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for name, old, new in _methods(before, after):
        if old.request != new.request:
            yield f"the method {name} took {old.request}, and takes {new.request}"


def _replies(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for name, old, new in _methods(before, after):
        if old.reply != new.reply:
            yield f"the method {name} returned {old.reply}, and returns {new.reply}"


def _client_streams(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for name, old, new in _methods(before, after):
        if old.client_streams != new.client_streams:
            yield f"the method {name} {_took(new.client_streams)} stream of requests"


def _server_streams(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for name, old, new in _methods(before, after):
        if old.server_streams != new.server_streams:
            returned = (
                "returned one reply, and returns a" if new.server_streams else "returned a stream, and returns no"
            )
            yield f"the method {name} {returned} stream"


def _took(now: bool) -> str:
    return "took one request, and takes a" if now else "took a stream, and takes no"


def _deleted_fields(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for old, new in _messages(before, after):
        numbers = {each.number for each in new.fields} | new.reserved.numbers
        for field in old.fields:
            if field.number not in numbers:
                yield f"{old.name}.{field.name} is removed, and its number {field.number} is not reserved"


def _deleted_field_names(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for old, new in _messages(before, after):
        numbers = {each.number for each in new.fields}
        names = {each.name for each in new.fields} | new.reserved.names
        for field in old.fields:
            if field.number not in numbers and field.name not in names:
                yield f"{old.name}.{field.name} is removed, and its name is not reserved"


def _field_names(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for old, new in _messages(before, after):
        names = {each.number: each.name for each in new.fields}
        for field in old.fields:
            if (now := names.get(field.number, field.name)) != field.name:
                yield f"{old.name}: the number {field.number} was that of {field.name}, and is that of {now}"


def _field_numbers(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for old, new in _messages(before, after):
        for field in old.fields:
            now = new.field_named(field.name)
            if now is not None and now.number != field.number:
                yield f"{old.name}.{field.name} had the number {field.number}, and has {now.number}"


def _field_types(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for old, new in _messages(before, after):
        for field in old.fields:
            now = new.field_named(field.name)
            if (
                now is not None
                and (now.type, now.key) != (field.type, field.key)
                and _is_same_label(field.label, now.label)
            ):
                yield f"{old.name}.{field.name} was {field.whole_type}, and is {now.whole_type}"


def _cardinality(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for old, new in _messages(before, after):
        for field in old.fields:
            now = new.field_named(field.name)
            if now is not None and not _is_same_label(field.label, now.label):
                yield f"{old.name}.{field.name} was {field.whole_type}, and is {now.whole_type}"


def _is_same_label(old: str, new: str) -> bool:
    """Whether two labels mean the same number of values. `optional` changes nothing on the wire."""
    single = ("", "optional")
    return old == new or (old in single and new in single)


def _oneofs(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for old, new in _messages(before, after):
        for field in old.fields:
            now = new.field_named(field.name)
            if now is not None and now.oneof != field.oneof:
                was, becomes = field.oneof or "no oneof", now.oneof or "no oneof"
                yield f"{old.name}.{field.name} was in {was}, and is in {becomes}"


def _new_required(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    sent = _sent_messages(after)
    for old, new in _messages(before, after):
        if new.name not in sent:
            continue
        known = {each.oneof or each.name for each in old.fields if each.label != "optional"}
        for name in sorted(new.required - known):
            was = "could be left out" if old.field_named(name) else "is new"
            yield f"{new.name}.{name} {was}, and is required: older clients do not send it; give it a default"


def _sent_messages(file: ProtoFile) -> set[str]:
    """The messages that clients send."""
    waiting = [each.request for methods in file.services.values() for each in methods.values()]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in file.messages and name not in found:
            found.add(name)
            waiting += [each.type for each in file.messages[name].fields]
    return found


def _reserved(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for old, new in _messages(before, after):
        used = {each.number: each.name for each in new.fields}
        for number in sorted(old.reserved.numbers - new.reserved.numbers):
            now = f"is that of {used[number]}" if number in used else "is free"
            yield f"{old.name}: the number {number} was reserved, and {now}"
        yield from _free_names(old.name, old.reserved.names, new.reserved.names, {each.name for each in new.fields})


def _free_names(place: str, old: Set[str], new: Set[str], used: Set[str]) -> Iterator[str]:
    for name in sorted(old - new):
        yield f"{place}: the name {name} was reserved, and is {'used again' if name in used else 'free'}"


def _deleted_values(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for name, old in before.enums.items():
        if (new := after.enums.get(name)) is None:
            continue
        numbers = {*new.values.values(), *new.reserved.numbers}
        for value, number in old.values.items():
            if number not in numbers:
                yield f"{name}.{value} is removed, and its number {number} is not reserved"


def _deleted_value_names(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for name, old in before.enums.items():
        if (new := after.enums.get(name)) is None:
            continue
        numbers, names = set(new.values.values()), {*new.values, *new.reserved.names}
        for value, number in old.values.items():
            if number not in numbers and value not in names:
                yield f"{name}.{value} is removed, and its name is not reserved"


def _value_names(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for name, old in before.enums.items():
        if (new := after.enums.get(name)) is None:
            continue
        names = {number: value for value, number in new.values.items()}
        for value, number in old.values.items():
            if (now := names.get(number, value)) != value:
                yield f"{name}: the number {number} was that of {value}, and is that of {now}"


def _reserved_values(before: ProtoFile, after: ProtoFile) -> Iterator[str]:
    for name, old in before.enums.items():
        if (new := after.enums.get(name)) is not None:
            for number in sorted(old.reserved.numbers - new.reserved.numbers):
                yield f"{name}: the number {number} was reserved, and is not any more"
            yield from _free_names(name, old.reserved.names, new.reserved.names, set(new.values))


RULES = (
    Rule("PACKAGE_SAME", "the package", _package),
    Rule("SERVICE_NO_DELETE", "the services", _services),
    Rule("RPC_NO_DELETE", "the methods", _gone_methods),
    Rule("RPC_SAME_REQUEST_TYPE", "the message that a method takes", _requests),
    Rule("RPC_SAME_RESPONSE_TYPE", "the message that a method returns", _replies),
    Rule("RPC_SAME_CLIENT_STREAMING", "whether a method takes a stream", _client_streams),
    Rule("RPC_SAME_SERVER_STREAMING", "whether a method returns a stream", _server_streams),
    Rule("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", "a field, if its number is free afterwards", _deleted_fields),
    Rule("FIELD_NO_DELETE_UNLESS_NAME_RESERVED", "a field, if its name is free afterwards", _deleted_field_names),
    Rule("FIELD_SAME_NAME", "the name of a number", _field_names),
    Rule("FIELD_SAME_NUMBER", "the number of a name", _field_numbers),
    Rule("FIELD_SAME_TYPE", "the type of a field", _field_types),
    Rule("FIELD_SAME_CARDINALITY", "whether a field has one value, a list or a map", _cardinality),
    Rule("FIELD_SAME_ONEOF", "the oneof of a field", _oneofs),
    Rule("FIELD_NO_NEW_REQUIRED", "what a client must send (buf has no such rule)", _new_required),
    Rule("RESERVED_MESSAGE_NO_DELETE", "the reserved numbers and names of a message", _reserved),
    Rule("ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED", "a value, if its number is free afterwards", _deleted_values),
    Rule("ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED", "a value, if its name is free afterwards", _deleted_value_names),
    Rule("ENUM_VALUE_SAME_NAME", "the name of the number of a value", _value_names),
    Rule("RESERVED_ENUM_NO_DELETE", "the reserved numbers and names of an enum", _reserved_values),
)
"""What must not change."""
