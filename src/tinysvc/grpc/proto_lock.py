"""The committed .proto file beside a module is the lock of the field numbers.

    a name that the file has              its number
    a new name                            the next number, beyond all that the file uses or reserves
    a name that the code has no more      its number and name become reserved
    another type under the same name      the start ends with an error
    no file                               numbers in the order of the fields, and a warning

`Field(7)` says a number in the code; the file may not say another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from .field import RESERVED
from .message_errors import LockError
from .proto_file import ProtoEnum, ProtoField, ProtoFile, ProtoMessage, field_of
from .shapes import EnumShape, MessageShape, Reserved, Slot


def assign_numbers(
    kinds: Sequence[MessageShape | EnumShape], lock: ProtoFile | None, name: str, *, strict: bool = True
) -> None:
    """Give each field, and each value of an enum, its number.

    Args:
        kinds: The shapes of a file. Their numbers and their reserved numbers and names are set.
        lock: The committed file.
        name: Its name, for errors.
        strict: Whether a changed type is an error.

    Raises:
        LockError: A type has changed, or a number that the code declares cannot be used.
    """
    faults: list[str] = []
    for kind in kinds:
        if isinstance(kind, EnumShape):
            _number_values(kind, lock.enums.get(kind.name) if lock else None)
        else:
            faults += _number_fields(kind, lock.messages.get(kind.name) if lock else None, strict)
    if faults:
        fault = f"{name} and the code do not agree:" if lock else f"{name} cannot be made of the code:"
        raise LockError(fault + "".join(f"\n  {each}" for each in faults))


def _number_fields(shape: MessageShape, locked: ProtoMessage | None, strict: bool) -> list[str]:
    locked = locked or ProtoMessage(shape.name)
    known = {each.name: each for each in locked.fields}
    fields = list(shape.fields())
    declared = {each.declared: each.name for each in fields if each.declared}
    faults = []
    used = {*locked.reserved.numbers, *(each.number for each in locked.fields), *declared}
    taken: dict[int, str] = {}
    following = _next_numbers(
        used, after=max((*(each.number for each in locked.fields), *locked.reserved.numbers), default=0)
    )
    for slot in fields:
        before = known.get(slot.name)
        slot.number = slot.declared or (before.number if before else next(following))
        place = f"{shape.name}.{slot.name}"
        if before is not None and strict:
            faults += _changes(place, slot, before)
        if (other := taken.setdefault(slot.number, slot.name)) != slot.name:
            faults.append(f"{place} and {shape.name}.{other} both have the number {slot.number}; change one Field(...)")
        if before is None and slot.declared and (fault := _taken_before(place, slot, locked)):
            faults.append(fault)
    now = {each.name for each in fields}
    removed = [each for each in locked.fields if each.name not in now]
    shape.reserved = Reserved(
        locked.reserved.numbers | {each.number for each in removed},
        (locked.reserved.names | {each.name for each in removed}) - now,
    )
    return faults


def _taken_before(place: str, slot: Slot, locked: ProtoMessage) -> str:
    """Why a new field cannot have the number that the code declares; "" if it can."""
    if slot.number in locked.reserved.numbers:
        return f"{place} has Field({slot.number}), which belonged to a removed field; take another number"
    for each in locked.fields:
        if each.number == slot.number:
            return f"{place} has Field({slot.number}), which the file gives to {each.name}; take another number"
    return ""


def _changes(place: str, slot: Slot, before: ProtoField) -> list[str]:
    now = field_of(slot)
    if slot.declared and slot.declared != before.number:
        return [
            f"{place} has the number {before.number} in the file and Field({slot.declared}) in the code; "
            f"keep {before.number}"
        ]
    if now.whole_type == before.whole_type:
        return []
    is_renamed = now.whole_type == replace(before, type=now.type).whole_type
    if is_renamed and now.type[0].isupper() and before.type[0].isupper():
        remedy = f"if only the name of the class has changed, rename {before.type} in the file, too"
    else:
        remedy = "give the field another name, or its old type"
    return [f"{place} was {before.whole_type}, and is {now.whole_type}; {remedy}"]


def _next_numbers(used: Iterable[int], after: int) -> Iterator[int]:
    used = set(used)
    number = after
    while True:
        number += 1
        if number in RESERVED:
            number = RESERVED.stop
        if number not in used:
            yield number


def _number_values(shape: EnumShape, locked: ProtoEnum | None) -> None:
    locked = locked or ProtoEnum(shape.name)
    used = {0, *locked.values.values(), *locked.reserved.numbers}
    following = max(used)
    zero, *others = shape.values
    zero.number = 0
    for each in others:
        if each.name in locked.values:
            each.number = locked.values[each.name]
        else:
            following += 1
            each.number = following
    now = {each.name for each in shape.values}
    removed = {name: number for name, number in locked.values.items() if name not in now and number != 0}
    shape.reserved = Reserved(
        locked.reserved.numbers | set(removed.values()), (locked.reserved.names | set(removed)) - now
    )


def additions(file: ProtoFile, lock: ProtoFile) -> list[str]:
    """What a file has and the committed file lacks."""
    found = []
    for message in file.messages.values():
        before = lock.messages.get(message.name)
        names = {each.name for each in before.fields} if before else set()
        new = [each.name for each in message.fields if each.name not in names]
        if before is None:
            found.append(message.name)
        else:
            found += [f"{message.name}.{name}" for name in new]
    for enum in file.enums.values():
        known = lock.enums.get(enum.name)
        found += [enum.name] if known is None else [name for name in enum.values if name not in known.values]
    for service, methods in file.services.items():
        found += [f"{service}.{name}" for name in methods if name not in lock.services.get(service, {})]
    return found
