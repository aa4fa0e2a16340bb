"""The headers that a client may send with the submission of a durable job.

Idempotency-Key: "8e03978e-40d5"     the same durable job for each request with this key (a draft of the IETF)
Prefer: wait=10                      wait for the result (RFC 7240)
Job-After: 60                        start it in 60 seconds at the earliest
Job-Priority: 5                      start it before those with a smaller number; -100 to 100, by default 0
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

from ..core.errors import HTTPError
from ..core.requests import Request
from ..service.job_verbs import MAX_AFTER, MAX_KEY, MAX_PRIORITY

AFTER, PRIORITY, KEY = "job-after", "job-priority", "idempotency-key"
"""Names of the headers."""

_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
_SCOPE = "\n"
"""Between a key and the hash of its sender's credentials; a header cannot contain it."""


def job_headers(after: float, priority: int, key: str) -> list[tuple[str, str]]:
    """The headers of a submission by `submit`.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value has another type.
    """
    if not 0 <= after <= MAX_AFTER:
        raise ValueError(f"after takes seconds, from 0 to {MAX_AFTER:.0f}, not {after!r}")
    if type(priority) is not int or abs(priority) > MAX_PRIORITY:
        raise ValueError(f"priority takes a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {priority!r}")
    found: list[tuple[str, str]] = []
    if key:
        if not _KEY.fullmatch(key) or len(key) > MAX_KEY:
            raise ValueError(f"key takes 1 to {MAX_KEY} visible ASCII characters, not {key[: MAX_KEY + 1]!r}")
        quoted = re.sub(r'(["\\\\])', r"\\\1", key)
        found.append((KEY, f'"{quoted}"'))
    if after:
        found.append((AFTER, f"{after:.3f}"))
    if priority:
        found.append((PRIORITY, str(priority)))
    return found


def after_of(request: Request) -> float:
    """Seconds until the durable job may start. HTTPError 400 for a wrong value."""
    text = request.headers.get(AFTER)
    if text is None:
        return 0.0
    if not _NUMBER.fullmatch(text) or float(text) > MAX_AFTER:
        raise HTTPError(400, f"Job-After takes seconds, from 0 to {MAX_AFTER:.0f}, not {text[:40]!r}.")
    return float(text)


def priority_of(request: Request) -> int:
    """The priority of the durable job. HTTPError 400 for a wrong value."""
    text = request.headers.get(PRIORITY)
    if text is None:
        return 0
    if not _INTEGER.fullmatch(text) or abs(int(text)) > MAX_PRIORITY:
        raise HTTPError(
            400, f"Job-Priority takes a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {text[:40]!r}."
        )
    return int(text)


def key_of(request: Request) -> str:
    """The Idempotency-Key, with or without the quotes that its draft asks for; "" for none. HTTPError 400 if wrong."""
    text = request.headers.get(KEY)
    if text is None:
        return ""
    text = text.strip(" \t")
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if len(text) > MAX_KEY or not _KEY.fullmatch(text):
        raise HTTPError(400, f"Idempotency-Key takes 1 to {MAX_KEY} visible ASCII characters, as in a UUID.")
    return text


def sent_values(request: Request, places: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Name and value of those of these headers and cookies that the request has.

    Args:
        request: The request.
        places: "header" or "cookie", and a name.
    """
    found = []
    for place, name in places:
        if place == "cookie":
            found += [(f"cookie {name}", request.cookies[name])] if name in request.cookies else []
        elif name in request.headers:
            found.append((name, ", ".join(request.headers.get_all(name))))
    return found


def scoped_key(key: str, path: str, credentials: list[tuple[str, str]]) -> str:
    """The key as the store keeps it, where a key belongs to a route.

    Two paths of the route, and two clients with different credentials, never share a durable job by its key.

    Args:
        key: The client's key, or "".
        path: The path of a route with path parameters; "" for another one.
        credentials: Those that the request has: see `sent_values`.
    """
    if not key or not (path or credentials):
        return key
    return f"{key}{_SCOPE}{sha256(repr((path, credentials)).encode()).hexdigest()[:16]}"


def shown_key(key: str) -> str:
    """The client's key, of a key that the store keeps."""
    return key.partition(_SCOPE)[0]
