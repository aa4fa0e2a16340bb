"""Where in a request a parameter's value stands: `Annotated[T, Query()]`, `Header()`, `Bearer()` and so on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import ConfigurationError, HTTPError
from ..core.form_data import FormData
from ..core.requests import Request
from .annotations import extras


@dataclass(frozen=True)
class Query:
    """Marker: the parameter is filled from the query string.

    A `list` takes all values of the name, any other type the last one. A scalar parameter without a marker is filled
    from the query, too.

    Args:
        name: Name in the query. None: the name of the parameter.

    Example:
        ```python
        from typing import Annotated

        from tinysvc import Query, io_route

        @io_route("/search")
        async def search(words: Annotated[list[str], Query("q")]) -> list[str]:
            return words
        ```
    """

    name: str | None = None


@dataclass(frozen=True)
class Header:
    """Marker: the parameter is filled from a request header.

    Args:
        name: Name of the header. None: the name of the parameter, with dashes for underscores.

    Example:
        ```python
        from typing import Annotated

        from tinysvc import Header, io_route

        @io_route("/agent")
        async def agent(user_agent: Annotated[str, Header()] = "") -> str:
            return user_agent
        ```
    """

    name: str | None = None


@dataclass(frozen=True)
class Cookie:
    """Marker: the parameter is filled from a cookie of the request (RFC 6265).

    Args:
        name: Name of the cookie. None: the name of the parameter.

    Example:
        ```python
        from typing import Annotated

        from tinysvc import Cookie, io_route

        @io_route("/theme")
        async def theme(theme: Annotated[str, Cookie()] = "light") -> str:
            return theme
        ```
    """

    name: str | None = None


@dataclass(frozen=True)
class Form:
    """Marker: the parameter is filled from a form, urlencoded or multipart (RFC 7578).

    A parameter whose type is a dataclass, Struct, TypedDict or attrs class takes the whole form. Then each of its
    fields is a field of the form; an `UploadFile` is a file, and a list takes all values.

    Args:
        name: Name of the field. None: the name of the parameter.

    Example:
        ```python
        from typing import Annotated

        from tinysvc import Form, UploadFile, io_route

        @io_route("/photos", methods=["POST"])
        async def add(title: Annotated[str, Form()], photo: UploadFile) -> dict:
            return {"title": title, "bytes": photo.size}
        ```
    """

    name: str | None = None


@dataclass(frozen=True)
class Path:
    """A segment of the path, for a parameter that the path names."""

    name: str | None = None


@dataclass(frozen=True)
class Bearer:
    """Marker: the parameter is filled with the token of `Authorization: Bearer` (RFC 6750).

    A request without a token gets a 401, unless the parameter has a default. The handler, or a resource of the request,
    checks the token, and raises `HTTPError(401)` for a wrong one.

    Args:
        name: Name of the security scheme in the OpenAPI document. None: "bearer".

    Example:
        ```python
        from typing import Annotated

        from tinysvc import Bearer, HTTPError, io_resource, io_route

        @io_resource
        def user(token: Annotated[str, Bearer()]) -> str:
            if token != "secret":
                raise HTTPError(401, "The token is unknown.")
            return "Ada"

        @io_route("/me")
        async def me(user: str) -> str:
            return user
        ```
    """

    name: str | None = None


@dataclass(frozen=True)
class ApiKey:
    """Marker: the parameter is filled with a key from a header, a cookie or the query.

    A request without a key gets a 401, unless the parameter has a default. Compare keys with `hmac.compare_digest`,
    which takes the same time for right and wrong keys.

    Args:
        name: Name of the header, cookie or query field. None: the name of the parameter.
        place: "header", "cookie" or "query".

    Raises:
        ConfigurationError: `place` is none of the three.

    Example:
        ```python
        import hmac
        from typing import Annotated

        from tinysvc import ApiKey, HTTPError, io_route

        @io_route("/report")
        async def report(key: Annotated[str, ApiKey("x-api-key")]) -> str:
            if not hmac.compare_digest(key, "secret"):
                raise HTTPError(401, "The key is unknown.")
            return "all is well"
        ```
    """

    name: str | None = "x-api-key"
    place: Literal["header", "cookie", "query"] = "header"

    def __post_init__(self) -> None:
        if self.place not in ("header", "cookie", "query"):
            where = 'a "header", a "cookie" or the "query"'
            raise ConfigurationError(f"the place of an ApiKey is {where}, not {self.place!r}")


Marker = Query | Header | Cookie | Form | Path | Bearer | ApiKey
MARKERS = (Query, Header, Cookie, Form, Bearer, ApiKey)
"""The markers for authors."""


def marker_in(annotation: Any) -> Marker | None:
    """The marker in `Annotated[T, marker]`, also in a member of a union. `Header` means `Header()`."""
    for extra in extras(annotation):
        if isinstance(extra, MARKERS):
            return extra
        if extra in MARKERS:
            return extra()  # type: ignore[no-any-return]
    return None


Values = Callable[[Request, str], list[str]]
"""Returns all values that a request has under a name."""


def lookup_of(marker: Marker, parameter: str) -> tuple[str, str, Values]:
    """The place, the name of the value in that place, and the function that finds its values."""
    if isinstance(marker, Bearer):
        return "header", "authorization", _tokens
    where = marker.place if isinstance(marker, ApiKey) else type(marker).__name__.lower()
    return where, marker.name or (parameter.replace("_", "-") if where == "header" else parameter), _VALUES[where]


_VALUES: dict[str, Values] = {
    "path": lambda request, name: [request.path_params[name]],  # type: ignore[index]
    "query": lambda request, name: request.query.get(name, []),
    "header": lambda request, name: request.headers.get_all(name),
    "cookie": lambda request, name: [request.cookies[name]] if name in request.cookies else [],
    "form": lambda request, name: form_of(request).fields.get(name, []),
}


def _tokens(request: Request, name: str) -> list[str]:
    scheme, _, token = request.headers.get(name, "").strip(" \t").partition(" ")
    return [token.strip(" \t")] if scheme.lower() == "bearer" and token else []


def form_of(request: Request) -> FormData:
    form = request.form_data
    assert form is not None, "the form is parsed before the parameters are bound"
    return form


def unauthorized(marker: Bearer | ApiKey, where: str, field: str) -> HTTPError:
    """401 for a request without a token or key (RFC 9110, 15.5.2)."""
    if isinstance(marker, Bearer):
        return HTTPError(
            401, "This needs a token: 'Authorization: Bearer ...'.", headers=[("www-authenticate", "Bearer")]
        )
    challenge = [
        ("www-authenticate", f'ApiKey {where}="{field}"')
    ]  # the scheme is not registered, but 15.5.2 requires one
    return HTTPError(401, f"This needs a key in the {where} {field!r}.", headers=challenge)
