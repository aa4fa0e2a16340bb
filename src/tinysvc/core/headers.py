"""Header fields: the mapping of a request, the checked lines of a response, and the grammar of both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, TypeVar, overload

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5, as latin-1

T = TypeVar("T")


class Headers(Mapping[str, str]):
    """The header fields of a request: a mapping whose names are case-insensitive and whose values are Latin-1 text.

    The lines of a repeated field are joined with a comma (RFC 9110, 5.3). `get_all` returns the lines.

    Example:
        ```python
        from tinysvc.core.headers import Headers

        headers = Headers([(b"accept", b"text/html"), (b"accept", b"*/*")])
        assert headers["Accept"] == "text/html, */*"
        ```
    """

    __slots__ = ("_lines", "raw")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.raw = raw
        self._lines: dict[str, list[str]] | None = None

    def _decoded(self) -> dict[str, list[str]]:
        if self._lines is None:
            lines: dict[str, list[str]] = {}
            for name, value in self.raw:
                lines.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
            self._lines = lines
        return self._lines

    def get_all(self, name: str) -> list[str]:
        """Return the value of each line with this name, in order.

        Args:
            name: Name of the header, in any case.

        Returns:
            The values; an empty list if the header was not sent.
        """
        return list(self._decoded().get(name.lower(), ()))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._decoded()[name.lower()])

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str) -> str: ...
    @overload
    def get(self, name: str, /, default: T) -> str | T: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """Return the value of a header, or a default. It is faster than `[]` for a missing header.

        Args:
            name: Name of the header, in any case.
            default: Result if the header was not sent.

        Returns:
            The value, or the default.
        """
        lines = self._decoded().get(name.lower())
        return default if lines is None else ", ".join(lines)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._decoded()

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


SERVER_HEADERS = {
    "content-length": "it follows from the content, unless the content is a stream",
    "transfer-encoding": "return an iterator to stream",
    "connection": "the server decides about keep-alive",
    "date": "it is added to every response",
}
"""Headers that a handler must not set, with the reason."""


def check_field(name: str, value: str) -> str:
    """Return the value. ValueError if name or value cannot stand in a header line."""
    if not isinstance(name, str) or not TOKEN.fullmatch(name):
        raise ValueError(f"a header name must be an RFC 9110 token, not {name!r}")
    if not isinstance(value, str) or not FIELD_VALUE.fullmatch(value):
        raise ValueError(bad_header_value(name, value))
    return value


def bad_header_value(name: str, value: object) -> str:
    """The sentence for a value that cannot stand in a header: the bad character, and the remedy."""
    if not isinstance(value, str):
        return f"the value of the header {name!r} must be text, not {value!r}"
    bad = next((character for character in value if not FIELD_VALUE.fullmatch(character)), "")
    if bad <= "\xff":
        return f"the value of the header {name!r} must be one line of text, but holds {bad!r}: {value!r}"
    remedy = "percent-encode it as parameters do, in name*=UTF-8''..."
    if name.lower() == "content-disposition":
        remedy = "use tinysvc.web.negotiation.attachment(name), which writes filename*=UTF-8''..."
    return (
        f"the value of the header {name!r} holds {bad!r}, and headers are Latin-1: {value!r}; {remedy} (RFC 6266, 8187)"
    )


class HeaderLines(list[tuple[str, str]]):
    """The header lines of a response. ValueError for a bad name or value, at the line that adds it."""

    __slots__ = ()

    def append(self, line: tuple[str, str]) -> None:
        super().append(_checked_line(line))

    def insert(self, index: SupportsIndex, line: tuple[str, str]) -> None:
        super().insert(index, _checked_line(line))

    def extend(self, lines: Iterable[tuple[str, str]]) -> None:
        super().extend([_checked_line(line) for line in lines])

    def __iadd__(self, lines: Iterable[tuple[str, str]]) -> HeaderLines:  # type: ignore[override,misc]
        self.extend(lines)
        return self

    def __setitem__(self, index: Any, new: Any) -> None:
        new = [_checked_line(line) for line in new] if isinstance(index, slice) else _checked_line(new)
        super().__setitem__(index, new)

    def copy(self) -> HeaderLines:
        new = HeaderLines()
        list.extend(new, self)
        return new


def _checked_line(line: tuple[str, str]) -> tuple[str, str]:
    name, value = line
    check_field(name, value)
    return name.lower(), value
