"""Does content begin with a pickle that loads as such? Nothing is unpickled: the opcodes are only counted.

A pickle is a program for a stack machine. Each opcode has an argument of a known length and takes a known number of
values from the stack, so the opcodes can be followed without their effects. `pickletools` has both as a table. It is
not used to read the arguments: the unpickler accepts some that `pickletools.genops` refuses, and a scanner that stops
there misses what follows.

Content is a pickle if the machine gets to the point where it calls something that it has imported, or, without that, to
a proper end after the opcode PROTO. Text and numbers that happen to begin with opcodes soon take a value from an empty
stack; the unpickler fails there, too.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

from ..core.units import MiB

MAX_OPCODES = 1_000_000
"""Content that is valid for so long is taken for a pickle. It takes about a second."""
MAX_PROTOCOL = 9
"""The unpickler refuses those that it does not know; Python 3.14 has 5."""

_IMPORTS = {"GLOBAL", "STACK_GLOBAL", "INST"}  # EXT1, EXT2 and EXT4 work only if the process has registered the code
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Bytes of the length in front of an argument."""


@dataclass(frozen=True, slots=True)
class _Opcode:
    name: str
    fixed: int
    """Bytes of the argument, or of its length."""
    counted: bool
    lines: int
    taken: int
    """Values that are taken from above the last mark, or from below it."""
    to_mark: bool
    """The last mark is taken, with all above it."""
    given: int


@cache
def _opcodes() -> dict[int, _Opcode]:
    return {ord(each.code): _opcode(each) for each in pickletools.opcodes}


def _opcode(found: pickletools.OpcodeInfo) -> _Opcode:
    size = found.arg.n if found.arg else 0
    lines = 0
    if size == pickletools.UP_TO_NEWLINE:
        lines = 2 if found.arg and found.arg.name == "stringnl_noescape_pair" else 1
    before = found.stack_before
    to_mark = pickletools.markobject in before
    taken = before.index(pickletools.markobject) if to_mark else len(before)
    counted = size in _LENGTHS
    fixed = _LENGTHS[size] if counted else max(size, 0)
    return _Opcode(found.name, fixed, counted, lines, taken, to_mark, len(found.stack_after))


class _Failed(Exception):
    """The unpickler fails here."""


def is_pickle(file: BinaryIO, spend: Callable[[int], None] | None = None) -> bool:
    """Does the content from here on begin with a pickle?

    Args:
        file: It can seek.
        spend: Is told the number of opcodes that were followed, bit by bit.
    """
    first, imported = "", False
    try:
        for number, name in enumerate(_followed(file)):
            first = first or name
            imported = imported or name in _IMPORTS
            if name in _CALLS and imported:
                return True
            if name == "STOP":
                return imported or first == "PROTO"
            if spend and number % 1000 == 999:
                spend(1000)
            if number >= MAX_OPCODES:
                return True
    except _Failed:
        pass
    return imported and first == "PROTO"  # an import alone may run code


def _followed(file: BinaryIO) -> Iterator[str]:
    """The names of the opcodes, as far as the unpickler gets."""
    table, values = _opcodes(), 0  # values above the last mark
    below: list[int] = []  # values below each mark
    while code := file.read(1):
        opcode = table.get(code[0])
        if opcode is None:
            raise _Failed
        _skip_argument(file, opcode)
        if opcode.name == "MARK":
            below.append(values)
            values = 0
        elif opcode.name == "POP" and not values and below:
            values = below.pop()  # the mark itself
        else:
            if opcode.to_mark:
                if not below:
                    raise _Failed
                values = below.pop()
            if values < opcode.taken:
                raise _Failed
            values += opcode.given - opcode.taken
        yield opcode.name


def _skip_argument(file: BinaryIO, opcode: _Opcode) -> None:
    head = file.read(opcode.fixed)
    if len(head) < opcode.fixed:
        raise _Failed
    if opcode.name == "PROTO" and head[0] > MAX_PROTOCOL:
        raise _Failed
    length = int.from_bytes(head, "little") if opcode.counted else 0
    if length >= 1 << 62:
        raise _Failed  # longer than any file
    file.seek(length, os.SEEK_CUR)  # if it is past the end, the next read gets nothing
    for _ in range(opcode.lines):
        line = file.readline(MiB)
        while line and not line.endswith(b"\n"):
            line = file.readline(MiB)
        if not line:
            raise _Failed
