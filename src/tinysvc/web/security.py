"""Middleware for security headers, which restrict a browser in the use of a response (OWASP Secure Headers).

Service(site, middleware=[SecurityHeaders()])
"""

from __future__ import annotations

from ..core.errors import ConfigurationError
from ..core.requests import Request
from ..core.responses import Handler, Response

CONTENT_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
"""Content of this host only, no plug-ins, no framing by other pages. Most pages need a wider policy."""

YEAR = 365 * 86400


class SecurityHeaders:
    """Middleware that adds security headers to responses (OWASP Secure Headers). A header that a handler sets stays.

    An empty text leaves the header out. Each argument is the value of its header.

    Args:
        content_security_policy: Content-Security-Policy, for HTML only. Most pages need a wider one than the default.
        hsts: Seconds (one year) for which a browser uses HTTPS only (RFC 6797); sent over HTTPS only. 0: no header.
        frame_options: X-Frame-Options.
        referrer_policy: Referrer-Policy.
        permissions_policy: Permissions-Policy.
        opener_policy: Cross-Origin-Opener-Policy.
        resource_policy: Cross-Origin-Resource-Policy.

    Raises:
        ConfigurationError: `hsts` is no whole number of seconds.
        ValueError: A text cannot stand in a header.

    Example:
        ```python
        from tinysvc import Service, io_route
        from tinysvc.web.security import SecurityHeaders

        @io_route("/")
        async def index() -> str:
            return "hello"

        service = Service(index, middleware=[SecurityHeaders(frame_options="SAMEORIGIN")])
        ```
    """

    def __init__(
        self,
        *,
        content_security_policy: str = CONTENT_POLICY,
        hsts: int = YEAR,
        frame_options: str = "DENY",
        referrer_policy: str = "strict-origin-when-cross-origin",
        permissions_policy: str = "",
        opener_policy: str = "same-origin",
        resource_policy: str = "same-origin",
    ) -> None:
        if type(hsts) is not int or hsts < 0:
            raise ConfigurationError(f"hsts takes a whole number of seconds, 0 to disable it, not {hsts!r}")
        lines = {
            "x-content-type-options": "nosniff",
            "x-frame-options": frame_options,
            "referrer-policy": referrer_policy,
            "permissions-policy": permissions_policy,
            "cross-origin-opener-policy": opener_policy,
            "cross-origin-resource-policy": resource_policy,
        }
        self._always = _checked(lines)
        self._pages = _checked({"content-security-policy": content_security_policy})
        self._secure = _checked({"strict-transport-security": f"max-age={hsts}" if hsts else ""})

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        present = {name for name, _ in response.headers}
        response.headers += [line for line in self._always if line[0] not in present]
        if (response.content_type or "").lower().startswith("text/html"):
            response.headers += [line for line in self._pages if line[0] not in present]
        if request.scheme == "https":
            response.headers += [line for line in self._secure if line[0] not in present]
        return response


def _checked(lines: dict[str, str]) -> list[tuple[str, str]]:
    """The headers that are not empty. ValueError if a value is not one line."""
    return Response(headers=[line for line in lines.items() if line[1]]).headers
