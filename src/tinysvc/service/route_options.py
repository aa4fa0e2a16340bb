"""The checks of the decorators' options. ConfigurationError names the function and the remedy."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import ConfigurationError
from ..core.responses import Middleware
from .routes import IDEMPOTENT_METHODS, About, Batch, Cache

_OPTIONS = [
    *("methods", "timeout", "on_disconnect", "max_body_size", "limit", "middleware"),
    *("pool", "batch", "cache", "idempotent", "hedge"),
    *About.__annotations__,
]


def check_called(decorator: str, path: object) -> None:
    if not isinstance(path, str):
        sentence = f'write @{decorator}("/path"), with the path that it serves, not {path!r}'
        raise ConfigurationError.at(path, sentence) if callable(path) else ConfigurationError(sentence)


def checked_methods(function: Callable[..., Any], methods: Sequence[str]) -> tuple[str, ...]:
    methods = [methods] if isinstance(methods, str) else methods
    if not isinstance(methods, (list, tuple, set, frozenset)) or not all(isinstance(m, str) for m in methods):
        raise ConfigurationError.at(function, f'methods takes a list of names, as in ["GET"], not {methods!r}')
    return tuple(method.upper() for method in methods)


def check_options(
    function: Callable[..., Any], on_disconnect: object, max_body_size: object, timeout: object, limit: object
) -> None:
    if on_disconnect not in (None, "cancel", "finish"):
        raise ConfigurationError.at(function, f'on_disconnect takes "cancel" or "finish", not {on_disconnect!r}')
    if max_body_size is not None and (type(max_body_size) is not int or max_body_size < 0):
        raise ConfigurationError.at(
            function, f"max_body_size must be a whole number of bytes, 0 or more, not {max_body_size!r}"
        )
    if timeout is not None and not _is_number(timeout):
        raise ConfigurationError.at(function, f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
    if limit is not None and not _is_count(limit):
        raise ConfigurationError.at(function, f"limit must be a whole number, 1 or more, not {limit!r}")


def checked_hedge(
    function: Callable[..., Any], hedge: object, methods: Sequence[str], idempotent: object
) -> float | None:
    """The seconds of `hedge=`, which only a handler that is safe to repeat may have."""
    if idempotent not in (None, True, False):
        raise ConfigurationError.at(function, f"idempotent takes True or False, not {idempotent!r}")
    if hedge is None:
        return None
    if not _is_number(hedge) or not hedge:
        raise ConfigurationError.at(function, f"hedge must be a number of seconds, more than 0, not {hedge!r}")
    by_method = IDEMPOTENT_METHODS.issuperset(checked_methods(function, methods))
    if not (by_method if idempotent is None else idempotent):
        raise ConfigurationError.at(
            function, "has a hedge, which sends a request twice; say idempotent=True if that is safe, or leave it out"
        )
    return float(hedge)  # type: ignore[arg-type]


def check_pool(function: Callable[..., Any], pool: object) -> None:
    if not isinstance(pool, str) or not pool:
        raise ConfigurationError.at(function, f'pool takes the name of a pool, as in pool="training", not {pool!r}')


def checked_middleware(middleware: object, function: Callable[..., Any] | None = None) -> tuple[Middleware, ...]:
    """The middleware of a service, or of the route of `function`: a list of functions."""
    found = tuple(middleware) if isinstance(middleware, Iterable) else (middleware,)
    if not isinstance(middleware, Iterable) or not all(map(takes_two, found)):
        sentence = f"middleware takes a list of functions, as in async def m(request, call_next), not {middleware!r}"
        raise ConfigurationError.at(function, sentence) if function else ConfigurationError(sentence)
    return found


def takes_two(function: object) -> bool:
    """Whether `function` is a function of two arguments, as middleware and error handlers are. Classes are not."""
    if not callable(function) or isinstance(function, type):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a C function without a signature
        pass
    return True


def checked_about(function: Callable[..., Any], about: About) -> About:
    for name in about:
        if name not in About.__annotations__:
            known = difflib.get_close_matches(name, _OPTIONS, 1)
            remedy = f"did you mean {known[0]}?" if known else f"the options are {', '.join(_OPTIONS)}"
            raise ConfigurationError.at(function, f"{name!r} is not an option of a route; {remedy}")
    for status, declared in about.get("responses", {}).items():
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ConfigurationError.at(function, f"responses takes statuses from 200 to 599, not {status!r}")
        if isinstance(declared, Mapping):
            remedy = 'as in {404: "No such item.", 201: Item}'
            raise ConfigurationError.at(function, f"responses takes a sentence or a type, {remedy}, not {declared!r}")
    if isinstance(about.get("tags"), str):
        raise ConfigurationError.at(function, f'tags is a list of names, as in ["users"], not {about["tags"]!r}')
    return about


def check_batch(function: Callable[..., Any], batch: object) -> None:
    if not isinstance(batch, Batch):
        raise ConfigurationError.at(function, f"batch takes a Batch, as in batch=Batch(size=32), not {batch!r}")
    if not _is_count(batch.size):
        raise ConfigurationError.at(function, f"the size of a batch is a whole number, 1 or more, not {batch.size!r}")
    if not _is_number(batch.wait):
        raise ConfigurationError.at(
            function, f"the wait of a batch is a number of seconds, 0 or more, not {batch.wait!r}"
        )
    if inspect.isgeneratorfunction(function):
        raise ConfigurationError.at(function, "streams, but a batch has no streams; return a list, or leave out batch=")


def checked_cache(function: Callable[..., Any], cache: object) -> Cache | None:
    """The option as a Cache; it may be only a number of seconds."""
    found = cache if isinstance(cache, Cache) or cache is None else Cache(cache)  # type: ignore[arg-type]
    if found is None:
        return None
    if not _is_number(found.seconds) or isinstance(found.seconds, bool) or not found.seconds > 0:
        raise ConfigurationError.at(function, f"cache takes a number of seconds above 0, or a Cache, not {cache!r}")
    if isinstance(found.headers, str) or not all(isinstance(name, str) for name in found.headers):
        raise ConfigurationError.at(
            function, f'the headers of a cache are a list of names, as in ["accept-language"], not {found.headers!r}'
        )
    if inspect.isgeneratorfunction(function):
        raise ConfigurationError.at(
            function, "streams, but a cache keeps no streams; return one value, or leave out cache="
        )
    return found


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and value >= 0
