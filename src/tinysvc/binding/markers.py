"""Where in a request a parameter's value stands: `Annotated[T, Query()]`, `Header()`, `Bearer()` and so on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import ConfigurationError, HTTPError
from ..core.forms import FormData
from ..core.requests import Request
from .annotations import extras


@dataclass(frozen=True)
class Query:
    """`Annotated[T, Query()]`: from the query string, under the parameter's name or `name`. A list takes all values."""

    name: str | None = None


@dataclass(frozen=True)
class Header:
    """`Annotated[T, Header()]`: from the header named like the parameter, with dashes for underscores, or `name`."""

    name: str | None = None


@dataclass(frozen=True)
class Cookie:
    """`Annotated[T, Cookie()]`: from the cookie named like the parameter, or `name`."""

    name: str | None = None


@dataclass(frozen=True)
class Form:
    """`Annotated[T, Form()]`: from the body, which is a form: the field named like the parameter, or `name`.

    Where T is a dataclass, Struct, TypedDict or attrs class, the whole form: its fields are T's, of which an
    `UploadFile` is a file, and a list takes all values.
    """

    name: str | None = None


@dataclass(frozen=True)
class Path:
    """A segment of the path: what a parameter named in it is filled from."""

    name: str | None = None


@dataclass(frozen=True)
class Bearer:
    """`Annotated[str, Bearer()]`: the token of `Authorization: Bearer` (RFC 6750).

    Who brings none gets a 401, unless the parameter has a default. Whether the token is good is for the author to say:
    HTTPError(401). `name` is what OpenAPI calls it.
    """

    name: str | None = None


@dataclass(frozen=True)
class ApiKey:
    """`Annotated[str, ApiKey("x-api-key")]`: a key in the header of this name, or in a "cookie" or the "query".

    Who brings none gets a 401, unless the parameter has a default. Compare it with `hmac.compare_digest`, which takes
    as long for a wrong key as for the right one.
    """

    name: str | None = "x-api-key"
    place: Literal["header", "cookie", "query"] = "header"

    def __post_init__(self) -> None:
        if self.place not in ("header", "cookie", "query"):
            where = 'a "header", a "cookie" or the "query"'
            raise ConfigurationError(f"an ApiKey stands in {where}, not in {self.place!r}")


Marker = Query | Header | Cookie | Form | Path | Bearer | ApiKey
MARKERS = (Query, Header, Cookie, Form, Bearer, ApiKey)
"""Those that an author writes."""


def marker_in(annotation: Any) -> Marker | None:
    """The marker in `Annotated[T, marker]`, also in a union; `Header` counts as `Header()`."""
    for extra in extras(annotation):
        if isinstance(extra, MARKERS):
            return extra
        if extra in MARKERS:
            return extra()  # type: ignore[no-any-return]
    return None


Values = Callable[[Request, str], list[str]]
"""All values of a request under a name."""


def place_of(marker: Marker, parameter: str) -> tuple[str, str, Values]:
    """The place's name, the name of the value there, and how its values are found."""
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
    assert form is not None, "whoever binds has read the form"
    return form


def unauthorized(marker: Bearer | ApiKey, where: str, field: str) -> HTTPError:
    """Who is to be known has not said who they are (RFC 9110, 15.5.2)."""
    if isinstance(marker, Bearer):
        return HTTPError(
            401, "This needs a token: 'Authorization: Bearer ...'.", headers=[("www-authenticate", "Bearer")]
        )
    challenge = [("www-authenticate", f'ApiKey {where}="{field}"')]  # no registered scheme, but 15.5.2 asks for one
    return HTTPError(401, f"This needs a key in the {where} {field!r}.", headers=challenge)
