"""The base of all messages between the server and its workers."""

from __future__ import annotations

from msgspec import Struct


class Message(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """No message is a part of a reference cycle, so the garbage collector need not know them."""
