"""The consequences of a failed attempt of a call.

    failure              idempotent       not idempotent   of the retry budget   the replica is blamed
    REFUSED              another replica  another replica  no                    yes, for a moment
    NOT_SENT             another replica  another replica  no                    yes
    SLOW_CONNECT         another replica  another replica  no                    as one of several failures
    NO_TIME              another replica  another replica  no                    no
    IDLE_RACE            once more        an error         yes                   no
    NO_RESPONSE          another replica  an error         yes                   yes
    NOT_STARTED (503)    another replica  another replica  yes                   no
    CUT_SHORT            an error         an error         -                     yes

A call that was never sent costs no callee anything, so it is not counted: each replica may be tried once. Everything
else is at most MAX_ATTEMPTS requests within one deadline. In a chain of services only the one that is next to the
failure repeats: its own failure is a 502, a 504, or a 503 that does not say `"started": false`, and none is repeated.
"""

from __future__ import annotations

from enum import Enum

MAX_ATTEMPTS = 3
"""Requests that are sent for one call, retries and hedges included (SRE book, chapter 21; Linkerd's default)."""

REPEATED_STATUS = 503
"""The only status after which a call may be repeated: if its problem document says that the job never started."""


class Failure(Enum):
    """How far an attempt came that has no response, or a 503 that says "started": false."""

    REFUSED = "nothing listens at the address"
    NOT_SENT = "the replica cannot be reached"
    SLOW_CONNECT = "the budget has ended before the connection was made"
    NO_TIME = "the budget is too short to make a connection"
    IDLE_RACE = "the replica has closed a reused connection without a response"
    NO_RESPONSE = "the replica has closed the connection without a response"
    NOT_STARTED = "the replica did not start the job"
    CUT_SHORT = "the response is not whole"


class AttemptFailed(Exception):
    """An attempt has no response."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail


_CERTAIN = frozenset({Failure.REFUSED, Failure.NOT_SENT})
_UNSENT = _CERTAIN | {Failure.SLOW_CONNECT, Failure.NO_TIME}
_BLAMED = _CERTAIN | {Failure.SLOW_CONNECT, Failure.NO_RESPONSE, Failure.CUT_SHORT}
_ANY_METHOD = _UNSENT | {Failure.NOT_STARTED}


def is_blamed(failure: Failure) -> bool:
    """Whether the circuit breaker of the replica counts this failure."""
    return failure in _BLAMED


def may_repeat(failure: Failure, *, idempotent: bool) -> bool:
    """Whether the call may be sent again, if the retry budget and the deadline allow it."""
    return failure is not Failure.CUT_SHORT and (idempotent or failure in _ANY_METHOD)


def was_not_sent(failure: Failure) -> bool:
    """Whether the attempt is neither counted nor charged to the retry budget."""
    return failure in _UNSENT


def is_certain(failure: Failure) -> bool:
    """Whether the replica is avoided at once. Any client can give a short budget, so that alone proves nothing."""
    return failure in _CERTAIN
