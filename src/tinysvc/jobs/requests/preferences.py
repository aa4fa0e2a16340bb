"""The preferences of a client that submits a durable job, or asks for its result: how long it likes to wait (RFC 7240).

    Prefer: respond-async, wait=10

The client waits up to 10 seconds for the result, and otherwise gets the state of the durable job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from time import monotonic

from ...core.requests import Request

MAX_WAIT = 300.0
"""Seconds that a request waits for a durable job, whatever it prefers: most proxies give up sooner."""

EARLIER = 0.05
"""Seconds that remain for the response to a request with a budget (`Request-Timeout`)."""

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_WORD = rf'{_NAME}|"(?:[^"\\]|\\.)*"'
_PREFERENCE = re.compile(
    rf"""[ \t]*(?:({_NAME})(?:[ \t]*=[ \t]*({_WORD}))?(?:[ \t]*;(?:[^",]|"(?:[^"\\]|\\.)*")*)?)?[ \t]*(?:,|$)""",
    re.VERBOSE,
)


def preferences(lines: Iterable[str]) -> dict[str, str]:
    """The preferences in these values of `Prefer` by their names in lower case. The first of one name counts.

    Text that is no preference is ignored, with the rest of its line: a preference is never an error (RFC 7240, 2).
    """
    found: dict[str, str] = {}
    for line in lines:
        position = 0
        while position < len(line) and (match := _PREFERENCE.match(line, position)):
            name, value = match[1], match[2] or ""
            if name:
                found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value)
            position = match.end()
    return found


class Wait:
    """How long one request waits for a durable job.

    Args:
        request: The request, with its `Prefer` header and its budget.
    """

    def __init__(self, request: Request) -> None:
        text = preferences(request.headers.get_all("prefer")).get("wait", "") if "prefer" in request.headers else ""
        self.preferred = text if text.isascii() and text.isdecimal() and len(text) < 10 else ""
        """Whole seconds, as the client has sent them; "" for no wait."""
        self._end = monotonic() + min(float(self.preferred or 0), MAX_WAIT)
        if request.time_limit is not None:
            self._end = min(self._end, request.time_limit - EARLIER)

    @property
    def seconds(self) -> float:
        """Seconds that are left, 0 or more."""
        return max(0.0, self._end - monotonic())

    def headers(self) -> list[tuple[str, str]]:
        """`Preference-Applied`, if the client prefers to wait (RFC 7240, 3)."""
        return [("preference-applied", f"wait={self.preferred}")] if self.preferred else []
