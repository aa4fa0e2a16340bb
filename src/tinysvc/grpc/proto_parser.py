"""Reads a .proto file, as far as this package prints such files: proto3, one package, messages, enums and services.

Comments and options are skipped. A file that an author has edited may have other integer types, which proto_lock.py
refuses with a better message than a syntax error.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .field import LARGEST
from .message_errors import LockError
from .proto_file import Label, ProtoEnum, ProtoField, ProtoFile, ProtoMessage, ProtoMethod
from .shapes import Reserved

_TOKEN = re.compile(
    r"""\s+|//[^\n]*|/\*.*?\*/|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<word>\.?[A-Za-z_][\w.]*|-?\d[\w.]*|[{}()<>\[\]=;,:+-])""",
    re.DOTALL,
)

_INT32 = -(2**31), 2**31 - 1

_MOST_RESERVED = 100_000
"""Numbers in one range: a set holds them."""


def parse_proto(text: str, name: str) -> ProtoFile:
    """The file. LockError with `name` and the line for a text that is no such file."""
    return _Parser(text, name).file()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._tokens: list[tuple[str, int]] = []
        position = line = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error(f"cannot read {text[position : position + 20]!r}", line)
            if token := match["text"] or match["word"]:
                self._tokens.append((token, line))
            line += match[0].count("\n")
            position = match.end()
        self._last_line = line
        self._at = 0

    def file(self) -> ProtoFile:
        self._expect("syntax", "=")
        if (syntax := self._next()).strip("\"'") != "proto3":
            raise self._error(f"its syntax is {syntax}, and only proto3 is read")
        self._expect(";")
        file = ProtoFile("")
        parts: dict[str, Callable[[ProtoFile], None]] = {
            "package": self._package,
            "import": self._skip,
            "option": self._skip,
            "message": self._message,
            "enum": self._enum,
            "service": self._service,
            ";": lambda file: None,
        }
        while self._at < len(self._tokens):
            word = self._next()
            if word not in parts:
                raise self._error(f"{word!r} begins no part of a file")
            parts[word](file)
        return file

    # Tokens

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _following(self) -> str:
        """The token behind the next one."""
        return self._tokens[self._at + 1][0] if self._at + 1 < len(self._tokens) else ""

    def _next(self) -> str:
        word = self._peek()
        if not word:
            raise self._error("the file ends in the middle", self._last_line)
        self._at += 1
        return word

    def _expect(self, *words: str) -> None:
        for word in words:
            if (found := self._next()) != word:
                raise self._error(f"{word!r} was expected, and {found!r} came")

    def _takes(self, word: str) -> bool:
        if self._peek() != word:
            return False
        self._at += 1
        return True

    def _identifier(self) -> str:
        word = self._next()
        if not re.fullmatch(r"\.?[A-Za-z_][\w.]*", word):
            raise self._error(f"a name was expected, and {word!r} came")
        return word

    def _number(self) -> int:
        word = self._next()
        try:
            return int(word, 0)
        except ValueError:
            raise self._error(f"a number was expected, and {word!r} came") from None

    def _within(self, number: int, first: int, last: int) -> int:
        if not first <= number <= last:
            raise self._error(f"{number} is not between {first} and {last}")
        return number

    def _error(self, sentence: str, line: int | None = None) -> LockError:
        if line is None:
            line = self._tokens[self._at - 1][1] if self._at else 0
        return LockError(f"{self._name}, line {line + 1}: {sentence}")

    def _skip(self, file: ProtoFile | None = None) -> None:
        """Skip a statement, or the options of one."""
        depth = 0
        while (word := self._next()) != ";" or depth:
            depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(word, 0)

    def _skip_options(self) -> None:
        if self._takes("["):
            while self._next() != "]":
                pass

    # Parts of a file

    def _package(self, file: ProtoFile) -> None:
        file.package = self._identifier()
        self._expect(";")

    def _type(self, file: ProtoFile) -> str:
        """The name of a type, without the package of the file."""
        name = self._identifier().removeprefix(".")
        return name.removeprefix(f"{file.package}.") if file.package else name

    def _message(self, file: ProtoFile) -> None:
        message = ProtoMessage(self._identifier())
        self._expect("{")
        while not self._takes("}"):
            self._member(file, message)
        if message.name in file.messages:
            raise self._error(f"there is a second message {message.name}")
        file.messages[message.name] = message

    def _member(self, file: ProtoFile, message: ProtoMessage) -> None:
        if self._takes(";"):
            return
        following = self._following()
        word = self._peek()
        if word == "reserved" and (following[:1] in "\"'" or following[:1].isdigit()):
            self._at += 1
            self._reserved(message.reserved, 1, LARGEST)
        elif word == "option" and following != "=":
            self._skip()
        elif word in ("message", "enum", "extend", "group", "extensions") and re.match(r"\w", following):
            raise self._error(
                f"{word} inside the message {message.name} is not read; put it beside it", self._tokens[self._at][1]
            )
        elif word == "oneof" and re.match(r"\w", following):
            self._at += 1
            oneof = self._identifier()
            self._expect("{")
            while not self._takes("}"):
                if self._peek() == "option":
                    self._skip()
                    continue
                message.fields.append(self._field(file, oneof))
        else:
            message.fields.append(self._field(file, ""))

    def _field(self, file: ProtoFile, oneof: str) -> ProtoField:
        label: Label = ""
        for each in ("optional", "repeated"):
            if self._peek() == each:
                self._at += 1
                label = each
        key = ""
        kind = self._type(file)
        if kind == "map" and self._takes("<"):
            key = self._identifier()
            self._expect(",")
            kind, label = self._type(file), "map"
            self._expect(">")
        name = self._identifier()
        self._expect("=")
        number = self._within(self._number(), 1, LARGEST)
        self._skip_options()
        self._expect(";")
        return ProtoField(name, kind, number, label, key, oneof)

    def _reserved(self, reserved: Reserved, least: int, largest: int) -> None:
        while True:
            word = self._next()
            if word[0] in "\"'":
                reserved.names.add(word[1:-1])
            else:
                first = last = self._within(self._read_number(word), least, largest)
                if self._takes("to"):
                    last = self._within(self._number(), least, largest)
                if last - first > _MOST_RESERVED:
                    raise self._error(f"more than {_MOST_RESERVED} numbers are reserved")
                reserved.numbers.update(range(first, last + 1))
            if not self._takes(","):
                break
        self._expect(";")

    def _read_number(self, word: str) -> int:
        try:
            return int(word, 0)
        except ValueError:
            raise self._error(f"a number was expected, and {word!r} came") from None

    def _enum(self, file: ProtoFile) -> None:
        enum = ProtoEnum(self._identifier())
        self._expect("{")
        while not self._takes("}"):
            if self._takes(";"):
                continue
            if self._peek() == "option":
                self._skip()
            elif self._peek() == "reserved" and self._following() != "=":
                self._at += 1
                self._reserved(enum.reserved, *_INT32)
            else:
                name = self._identifier()
                self._expect("=")
                enum.values[name] = self._within(self._number(), *_INT32)
                self._skip_options()
                self._expect(";")
        file.enums[enum.name] = enum

    def _service(self, file: ProtoFile) -> None:
        methods = file.services.setdefault(self._identifier(), {})
        self._expect("{")
        while not self._takes("}"):
            if self._takes(";"):
                continue
            if self._peek() == "option":
                self._skip()
                continue
            self._expect("rpc")
            method = self._method(file)
            methods[method.name] = method

    def _method(self, file: ProtoFile) -> ProtoMethod:
        name = self._identifier()
        self._expect("(")
        client_streams = self._takes("stream")
        request = self._type(file)
        self._expect(")", "returns", "(")
        server_streams = self._takes("stream")
        reply = self._type(file)
        self._expect(")")
        if self._takes("{"):
            depth = 1
            while depth:
                depth += {"{": 1, "}": -1}.get(self._next(), 0)
        else:
            self._expect(";")
        return ProtoMethod(name, request, reply, client_streams, server_streams)
