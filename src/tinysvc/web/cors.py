"""CORS, as middleware: pages of other origins may call this service from a browser (WHATWG Fetch, 3.2).

    Service(api, middleware=[Cors(origins=["https://app.example", "https://*.example.org"])])

A page of another origin may read a response only if the headers of the response allow it. Before any request but a
simple GET, HEAD or form POST, the browser sends a *preflight*: OPTIONS with Access-Control-Request-Method. This
middleware refuses no request: without the headers, the browser does not give the response to the page. A response that
sets Access-Control-Allow-Origin itself is not changed: browsers ignore the header if it comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..core.errors import ConfigurationError
from ..core.headers import TOKEN
from ..core.requests import Request
from ..core.responses import Handler, Response, add_vary

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://\*\.[a-z0-9._-]+(?::[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"http:.*:0*80|https:.*:0*443")  # browsers omit it (WHATWG URL, 4.2)

PREFLIGHT_HEADERS = ("origin", "access-control-request-method", "access-control-request-headers")
"""The request headers that the response to a preflight depends on."""


class Cors:
    """Middleware for CORS (WHATWG Fetch, 3.2): it lets pages of other origins call the service from a browser.

    Args:
        origins: Exact origins ("https://app.example"), patterns for all hosts below one ("https://*.example.org"),
            "null", or "*" for any origin.
        methods: Methods that a page may use.
        headers: Request headers that a page may send beside the simple ones; `["*"]` for any.
        expose: Response headers that a page may read.
        credentials: Whether pages may send cookies and HTTP authentication. It excludes "*" as an origin.
        max_age: Seconds for which a browser keeps the response to a preflight.

    Raises:
        ConfigurationError: An argument would match no request of a browser, or is unsafe.

    Example:
        ```python
        from tinysvc import Service, io_route
        from tinysvc.web.cors import Cors

        @io_route("/prices")
        async def prices() -> dict:
            return {"tea": 3}

        service = Service(prices, middleware=[Cors(origins=["https://app.example"])])
        ```
    """

    def __init__(
        self,
        *,
        origins: Sequence[str],
        methods: Sequence[str] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        headers: Sequence[str] = ("content-type", "authorization"),
        expose: Sequence[str] = (),
        credentials: bool = False,
        max_age: int = 600,
    ) -> None:
        if isinstance(origins, str) or not origins:
            raise ConfigurationError(f'origins takes a list, as in ["https://app.example"], not {origins!r}')
        self._any = "*" in origins
        if self._any and credentials:
            raise ConfigurationError(
                'origins=["*"] with credentials=True lets any page act for your users; list the origins'
            )
        for option, names in (("methods", methods), ("headers", headers), ("expose", expose)):
            if isinstance(names, str) or not all(TOKEN.fullmatch(name) for name in names):
                raise ConfigurationError(f"{option} takes a list of names, not {names!r}")
            if credentials and "*" in names and option != "headers":  # requested headers are echoed
                raise ConfigurationError(f'with credentials=True browsers ignore {option}=["*"]; list the names')
        if type(max_age) is not int or max_age < 0:
            raise ConfigurationError(f"max_age takes a whole number of seconds, not {max_age!r}")
        self._origins, self._patterns = _exact_and_patterns(origins)
        self._methods = ", ".join(methods).upper()
        self._headers = ", ".join(headers)
        self._any_header = "*" in headers
        self._own = [("access-control-allow-credentials", "true")] if credentials else []
        self._expose = [("access-control-expose-headers", ", ".join(expose))] if expose else []
        self._max_age = str(max_age)

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        origin = request.headers.get("origin")
        if request.method == "OPTIONS" and origin and "access-control-request-method" in request.headers:
            return self._preflight(request, origin)
        response = await call_next(request)
        if not self._any:
            add_vary(response, "origin")
        is_set = any(name == "access-control-allow-origin" for name, _ in response.headers)
        if origin and not is_set and self._allows(origin):
            response.headers += [self._allow(origin), *self._own, *self._expose]
        return response

    def _preflight(self, request: Request, origin: str) -> Response:
        response = Response(b"", 204)
        add_vary(response, *PREFLIGHT_HEADERS)
        if self._allows(origin):
            requested = request.headers.get("access-control-request-headers", "")
            headers = requested if self._any_header else self._headers
            response.headers += [
                self._allow(origin),
                *self._own,
                ("access-control-allow-methods", self._methods),
                ("access-control-max-age", self._max_age),
            ]
            if headers:
                response.headers.append(("access-control-allow-headers", headers))
        return response

    def _allow(self, origin: str) -> tuple[str, str]:
        return "access-control-allow-origin", "*" if self._any else origin

    def _allows(self, origin: str) -> bool:
        if self._any or origin in self._origins:
            return True
        lower = origin.lower()
        return lower in self._origins or any(pattern.fullmatch(lower) for pattern in self._patterns)


def _exact_and_patterns(origins: Sequence[str]) -> tuple[frozenset[str], list[re.Pattern[str]]]:
    """The exact origins, and expressions for the patterns."""
    exact, patterns = set(), []
    for origin in origins:
        text = origin.lower()
        if _DEFAULT_PORT.fullmatch(text):
            raise ConfigurationError(f"{origin!r} has the default port, which browsers omit from an origin; remove it")
        if _PATTERN.fullmatch(text):
            before, after = map(re.escape, text.split("*"))
            patterns.append(re.compile(f"{before}(?:[a-z0-9_-]+\\.)*[a-z0-9_-]+{after}"))
        elif text in ("*", "null") or _ORIGIN.fullmatch(text):
            exact.add(text)
        else:
            raise ConfigurationError(
                f"{origin!r} is not an origin: write scheme, host and any unusual port, without a path or "
                'a slash at the end, as in "https://app.example", or "https://*.example.org" for all subdomains'
            )
    return frozenset(exact), patterns
