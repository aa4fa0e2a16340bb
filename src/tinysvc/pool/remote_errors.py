"""Exceptions of jobs on their way from a worker to the server: as text, and for function calls also as a pickle."""

from __future__ import annotations

import pickle
from typing import Any

from ..core.errors import HTTPError, RemoteError, TinysvcError
from ..core.tracebacks import author_traceback
from .frames import ErrorText

MAX_ERROR_TEXT = 64 * 1024
"""Characters of an error's message or traceback that are sent: the last ones of a longer text."""


# In a worker


def error_text(error: BaseException) -> ErrorText:
    """The name of the error's type, its message, and its traceback."""
    try:
        message = str(error)
    except BaseException:
        message = "(its __str__ failed)"
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "__main__"):
        name = f"{type(error).__module__}.{name}"
    shown = "" if isinstance(error, TinysvcError) else author_traceback(error)
    return ErrorText(sendable_text(name), sendable_text(message), sendable_text(shown), _http_text(error))


def _http_text(error: BaseException) -> tuple[int, str, list[tuple[str, str]]] | None:
    if not isinstance(error, HTTPError):
        return None
    try:
        headers = [(sendable_text(name), sendable_text(value)) for name, value in error.headers]
        return error.status, sendable_text(error.detail), headers
    except Exception:  # a subclass that lacks them
        return None


def sendable_text(text: str) -> str:
    """The end of the text, at most MAX_ERROR_TEXT characters, with surrogates escaped."""
    return text[-MAX_ERROR_TEXT:].encode(errors="backslashreplace").decode()


def pickled_error(error: BaseException) -> bytes:
    """Pickle the exception, and whether unpickling restores it exactly, for run(), submit() and call().

    Many exceptions cannot be restored exactly, as their __init__ takes other arguments than those in `args`. These are
    replaced by a stand-in, which is created without __init__: of the same class, or an HTTPError if the server may not
    know the subclass. The result is empty if that fails, too.
    """
    candidates: list[tuple[object, type]] = [(error, type(error)), (_StandIn(error, type(error)), type(error))]
    if isinstance(error, HTTPError):
        candidates.append((_StandIn(error, HTTPError), HTTPError))
    for value, kind in candidates:
        data = _pickle_of((value, value is error))
        if data and type(pickle.loads(data)[0]) is kind:
            return data
    return b""


class _StandIn:
    """Pickles an exception by its arguments and attributes, without those that cannot be pickled."""

    def __init__(self, error: BaseException, kind: type[BaseException]) -> None:
        self._error, self._kind = error, kind

    def __reduce__(self) -> tuple[Any, ...]:
        args = tuple(each if _pickle_of(each) else repr(each) for each in self._error.args)
        state = {name: each for name, each in vars(self._error).items() if _pickle_of(each)}
        return _without_init, (self._kind, args, state)


def _without_init(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _pickle_of(value: object) -> bytes:
    """The pickle of the value; empty if it cannot be pickled or unpickled."""
    try:
        data = pickle.dumps(value)
        pickle.loads(data)
    except BaseException:
        return b""
    return data


# In the server


def remote_error(text: ErrorText, body: bytes | memoryview, *, only_http: bool = False) -> Exception:
    """The exception to raise for an error of a worker.

    Args:
        text: The result of `error_text`.
        body: The result of `pickled_error`, or b"". Only for function calls: unpickling it runs code.
        only_http: Restore no exception but an HTTPError.

    Returns:
        The exception itself, caused by a RemoteError, if it was restored exactly, or an HTTPError. Otherwise a
        RemoteError, whose `original` is the exception if it could be restored.
    """
    remote = RemoteError(text.type_name, text.message, text.traceback)
    if body:
        try:
            original, is_exact = pickle.loads(body)
        except BaseException:
            return remote
        if not isinstance(original, Exception) or isinstance(original, StopIteration):
            remote.__cause__ = original  # SystemExit would end the loop; a future does not accept StopIteration
        elif isinstance(original, HTTPError) or (is_exact and not only_http):
            original.__cause__ = remote
            return original
        else:
            remote.original = original
    elif text.http is not None and 400 <= text.http[0] <= 599:
        status, detail, headers = text.http
        error = HTTPError(status, detail, headers=headers)
        error.__cause__ = remote
        return error
    return remote
