"""The names of messages, fields, enum values and methods."""

from __future__ import annotations

import re

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_identifier(name: str) -> bool:
    """Whether protobuf accepts the name; Python accepts letters of all alphabets."""
    return _IDENTIFIER.fullmatch(name) is not None


def camel(name: str) -> str:
    """`get_user` as `GetUser`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name)) or "X"


def snake(name: str) -> str:
    """`OrderLine` as `order_line`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def package_of(service_name: str) -> str:
    """The package of a service's messages: `shop-orders` as `shop_orders`."""
    found = re.sub(r"[^a-z0-9_]+", "_", snake(service_name)).strip("_")
    return found if found[:1].isalpha() else f"service_{found}".rstrip("_")


def json_name(name: str) -> str:
    """The name of a field in protobuf's JSON, as protoc makes it."""
    return re.sub(r"_+([a-zA-Z0-9]?)", lambda match: match[1].upper(), name)


def value_key(name: str, enum: str) -> str:
    """Two values of an enum must differ in this, as protoc demands it of proto3."""
    left, rest = enum.replace("_", "").lower(), name
    while left and rest and (rest[0] == "_" or rest[0].lower() == left[0]):
        left = left[1:] if rest[0] != "_" else left
        rest = rest[1:]
    rest = rest.strip("_") if not left and rest.strip("_") else name
    return "".join(part[:1].upper() + part[1:].lower() for part in rest.split("_"))


class Names:
    """Names of one scope: each is taken once."""

    def __init__(self, *taken: str) -> None:
        self._taken = set(taken)

    def take(self, *wanted: str) -> str:
        """The first of these names that is free, or the last one with a number."""
        number = 1
        candidates = list(wanted)
        while (name := candidates.pop(0)) in self._taken:
            if not candidates:
                number += 1
                candidates.append(f"{wanted[-1]}{number}")
        self._taken.add(name)
        return name

    def has(self, name: str) -> bool:
        """Whether the name is taken."""
        return name in self._taken
