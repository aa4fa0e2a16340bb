"""remote_errors.py: exceptions of jobs as text and as pickles, and their way back."""

from __future__ import annotations

import pytest

import jobs
from tinysvc import HTTPError
from tinysvc.core.errors import RemoteError, TinysvcError
from tinysvc.pool.frames import ErrorText
from tinysvc.pool.remote_errors import MAX_ERROR_TEXT, error_text, pickled_error, remote_error


class TeapotError(HTTPError):
    """Its arguments are others than those of HTTPError, so unpickling calls `__init__` in vain."""

    def __init__(self, pot: str, lid: str) -> None:
        super().__init__(418, f"{pot} {lid}")


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def raised(error: Exception, *, only_http: bool = False) -> Exception:
    """The error that the server raises for the error of a worker."""
    return remote_error(error_text(error), pickled_error(error), only_http=only_http)


def test_exact_exception_is_restored_and_caused_by_the_remote_error() -> None:
    error = raised(ValueError("no", 7))
    assert type(error) is ValueError
    assert error.args == ("no", 7)
    assert isinstance(error.__cause__, RemoteError)
    assert isinstance(raised(ValueError("no"), only_http=True), RemoteError)


def test_inexact_exception_is_the_original_of_a_remote_error() -> None:
    error = raised(jobs.Unpicklable())
    assert isinstance(error, RemoteError)
    assert type(error.original) is jobs.Unpicklable


def test_http_error_is_restored_in_any_case() -> None:
    error = raised(TeapotError("pot", "lid"), only_http=True)
    assert isinstance(error, HTTPError)
    assert error.status == 418


def test_http_error_of_a_stream_needs_no_pickle() -> None:
    error = remote_error(error_text(HTTPError(409, "taken", headers=[("retry-after", "3")])), b"")
    assert isinstance(error, HTTPError)
    assert (error.status, error.detail, error.headers) == (409, "taken", [("retry-after", "3")])
    assert isinstance(error.__cause__, RemoteError)


def test_http_error_without_its_attributes_is_a_remote_error() -> None:
    error = HTTPError.__new__(TeapotError)
    assert isinstance(remote_error(error_text(error), b""), RemoteError)
    assert isinstance(remote_error(ErrorText("X", "message", "", (200, "", [])), b""), RemoteError)


@pytest.mark.parametrize("error", [StopIteration(1), SystemExit(2)])
def test_exceptions_that_a_future_cannot_carry_are_the_cause(error: BaseException) -> None:
    remote = remote_error(ErrorText("X", "message", ""), pickled_error(error))
    assert isinstance(remote, RemoteError)
    assert type(remote.__cause__) is type(error)


def test_broken_pickle_is_a_remote_error() -> None:
    assert isinstance(remote_error(ErrorText("X", "message", ""), b"rubbish"), RemoteError)


def test_text_is_cut_and_encodable() -> None:
    text = error_text(SilentError())
    assert (text.type_name, text.message) == (f"{__name__}.SilentError", "(its __str__ failed)")
    assert "SilentError" in text.traceback
    assert error_text(ValueError("\ud800")).message == "\\ud800"
    assert len(error_text(ValueError("x" * 10 * MAX_ERROR_TEXT)).message) == MAX_ERROR_TEXT


def test_own_errors_have_no_traceback() -> None:
    assert error_text(TinysvcError("all is in the message")).traceback == ""
