"""Cookies of responses (RFC 6265bis): set_cookie, delete_cookie and signed cookies. Request.cookies reads them.

A response that sets a cookie is for one client: it gets `Cache-Control: no-store`, unless it has a Cache-Control.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal, TypedDict, Unpack

import orjson

from ..core.errors import ConfigurationError
from ..core.headers import TOKEN
from ..core.optional_libraries import missing_library
from ..core.requests import Request
from ..core.responses import Response, add_vary

log = logging.getLogger("tinysvc.cookies")

MAX_SIZE = 4096
"""Bytes of name and value: browsers ignore a longer cookie (RFC 6265bis, 5.6)."""

MIN_SECRET = 16
"""Characters of a secret: a shorter one can be guessed."""

_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")  # RFC 6265, 4.1.1
_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]*")
SAME_SITE = {"lax": "Lax", "strict": "Strict", "none": "None"}


class CookieOptions(TypedDict, total=False):
    """The options of set_cookie, without max_age and expires."""

    path: str
    domain: str
    secure: bool
    http_only: bool
    same_site: Literal["lax", "strict", "none"]
    partitioned: bool


def set_cookie(
    response: Response,
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    expires: datetime | None = None,
    path: str = "/",
    domain: str = "",
    secure: bool = True,
    http_only: bool = True,
    same_site: Literal["lax", "strict", "none"] = "lax",
    partitioned: bool = False,
) -> None:
    """Add a cookie to a response (RFC 6265bis).

    By default it is for this host and HTTPS only, hidden from scripts, and lasts until the browser ends.

    The response gets `Cache-Control: no-store` if it has no `Cache-Control`, and `Vary: cookie`.

    Args:
        response: The response.
        name: A token (RFC 9110, 5.6.2).
        value: ASCII without spaces, quotes, commas, semicolons and backslashes; at most 4096 bytes with the name.
        max_age: Seconds that the browser keeps the cookie; 0 deletes it.
        expires: Time, with a time zone, until which the browser keeps the cookie.
        path: Prefix of the paths that the cookie is sent to.
        domain: Host, with all hosts below it, that the cookie is sent to. Empty: this host only.
        secure: Send the cookie over HTTPS only.
        http_only: Hide the cookie from scripts.
        same_site: Whether requests from other sites send the cookie: "lax", "strict" or "none".
        partitioned: Keep one cookie for each top-level site (CHIPS).

    Raises:
        ValueError: An argument cannot stand in a cookie, or browsers refuse the combination: SameSite=None,
            Partitioned, `__Secure-` and `__Host-` need `secure`; `__Host-` needs the path "/" and no domain.

    Example:
        ```python
        from tinysvc import Response
        from tinysvc.web.cookies import set_cookie

        response = Response("hello")
        set_cookie(response, "theme", "dark", max_age=30 * 86400)
        assert ("set-cookie", "theme=dark; Path=/; Max-Age=2592000; Secure; HttpOnly; SameSite=Lax") in response.headers
        ```
    """
    _check(name, value, path, domain, secure, same_site, partitioned)
    parts = [f"{name}={value}", f"Path={path}"]
    if max_age is not None:
        if type(max_age) is not int:
            raise ValueError(f"max_age takes a whole number of seconds, not {max_age!r}")
        parts.append(f"Max-Age={max_age}")
    if expires is not None:
        if expires.tzinfo is None:
            raise ValueError(f"expires takes a datetime with a time zone, not {expires!r}")
        parts.append(f"Expires={format_datetime(expires.astimezone(UTC), usegmt=True)}")
    if domain:
        parts.append(f"Domain={domain}")
    flags = {"Secure": secure, "HttpOnly": http_only, "Partitioned": partitioned}
    parts += [flag for flag, is_set in flags.items() if is_set]
    parts.append(f"SameSite={SAME_SITE[same_site]}")
    response.add_header("set-cookie", "; ".join(parts))
    if not any(name == "cache-control" for name, _ in response.headers):
        response.add_header("cache-control", "no-store")
    add_vary(response, "cookie")


def delete_cookie(response: Response, name: str, **options: Unpack[CookieOptions]) -> None:
    """Delete a cookie in the browser.

    Args:
        response: The response.
        name: Name of the cookie.
        **options: Options of `set_cookie`; `path` and `domain` must be those that the cookie was set with.

    Raises:
        ValueError: As in `set_cookie`.

    Example:
        ```python
        from tinysvc import Response
        from tinysvc.web.cookies import delete_cookie

        response = Response("goodbye")
        delete_cookie(response, "theme")
        ```
    """
    set_cookie(response, name, "", max_age=0, **options)


def _check(name: str, value: str, path: str, domain: str, secure: bool, same_site: str, partitioned: bool) -> None:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"the name of a cookie must be a token (RFC 9110, 5.6.2), not {name!r}")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ValueError(
            f"the value of the cookie {name} must be ASCII text without spaces, quotes, commas, semicolons, "
            "backslashes and control characters; encode it with urllib.parse.quote, or use SignedCookie"
        )
    if len(name) + len(value) > MAX_SIZE:
        raise ValueError(f"the cookie {name} has {len(name) + len(value)} bytes; browsers accept {MAX_SIZE}")
    for attribute, text in (("path", path), ("domain", domain)):
        if not _ATTRIBUTE.fullmatch(text):
            raise ValueError(
                f"the {attribute} of the cookie {name} must be ASCII text without semicolons, not {text!r}"
            )
    if same_site not in SAME_SITE:
        raise ValueError(f'same_site takes "lax", "strict" or "none", not {same_site!r}')
    for needs_secure, reason in (
        (same_site == "none", 'same_site="none"'),
        (partitioned, "partitioned"),
        (name.lower().startswith("__secure-"), "a name that begins with __Secure-"),
        (name.lower().startswith("__host-"), "a name that begins with __Host-"),
    ):
        if needs_secure and not secure:
            raise ValueError(f"the cookie {name} has {reason}: browsers accept it with secure=True only")
    if name.lower().startswith("__host-") and (path != "/" or domain):
        raise ValueError(
            f'the cookie {name} begins with __Host-: browsers accept it with path="/" and without a domain only'
        )


class SignedCookie:
    """A cookie with a signature: only the service can write its value, which is any JSON.

    The client can read the value. It needs `tinysvc[cookies]` (itsdangerous).

    Args:
        name: Name of the cookie.
        secrets: One secret, or several: the first one signs, all verify. Put a new secret in front to replace the old
            one. Each has 16 characters or more.
        max_age: Seconds for which a value is valid; the service checks it, too.
        **options: Further options of `set_cookie`.

    Raises:
        ConfigurationError: A secret is too short, `set_cookie` would refuse an option, or itsdangerous is missing.

    Example:
        ```python
        from tinysvc import Request, Response, io_route
        from tinysvc.web.cookies import SignedCookie

        session = SignedCookie("session", "a-secret-from-the-environment")

        @io_route("/visits")
        async def visits(request: Request) -> Response:
            count = (session.read(request) or 0) + 1
            response = Response({"visits": count})
            session.write(response, count)
            return response
        ```
    """

    def __init__(
        self, name: str, secrets: str | Sequence[str], *, max_age: int = 14 * 86400, **options: Unpack[CookieOptions]
    ) -> None:
        if missing := missing_library("itsdangerous"):
            raise ConfigurationError(missing)
        from itsdangerous import BadData, URLSafeTimedSerializer

        keys = [secrets] if isinstance(secrets, str) else list(secrets)
        if not keys or any(len(key) < MIN_SECRET for key in keys):
            raise ConfigurationError(
                f"each secret of the cookie {name} must have at least {MIN_SECRET} characters; "
                'make one with: python -c "import secrets; print(secrets.token_urlsafe())"'
            )
        try:
            set_cookie(Response(), name, "", max_age=max_age, **options)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self.name = name
        self.max_age = max_age
        self._options = options
        self._bad_data = BadData
        self._serializer = URLSafeTimedSerializer(keys[::-1], salt=f"tinysvc.cookie.{name}", serializer=_Json)

    def write(self, response: Response, value: Any) -> None:
        """Add the cookie to a response.

        Args:
            response: The response.
            value: Any value that JSON can hold.

        Raises:
            ValueError: The signed value is longer than browsers accept (4096 bytes with the name).
        """
        set_cookie(response, self.name, str(self._serializer.dumps(value)), max_age=self.max_age, **self._options)

    def read(self, request: Request) -> Any:
        """Read the cookie of a request.

        Args:
            request: The request.

        Returns:
            The value. None if the cookie is missing, too old or not signed by the service.
        """
        text = request.cookies.get(self.name)
        if text is None:
            return None
        try:
            return self._serializer.loads(text, max_age=self.max_age)
        except self._bad_data as error:  # also for a valid signature over invalid JSON
            log.debug("the cookie %s of request %s is not valid: %s", self.name, request.id, type(error).__name__)
            return None

    def delete(self, response: Response) -> None:
        """Delete the cookie in the browser.

        Args:
            response: The response.

        Raises:
            ValueError: As in `set_cookie`.
        """
        delete_cookie(response, self.name, **self._options)


class _Json:
    """orjson with the interface that itsdangerous needs."""

    @staticmethod
    def dumps(value: Any) -> str:
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(data: str) -> Any:
        return orjson.loads(data)
