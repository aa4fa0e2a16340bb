"""The query of a list of durable jobs: `?state=failed&limit=50&cursor=...`."""

from __future__ import annotations

import re
from typing import NamedTuple

from ...core.errors import BindingError
from ...core.requests import Request
from ...service.job_document import JOB_STATES
from ...service.job_verbs import DEFAULT_LIMIT, MAX_LIMIT
from ..records import State


class ListQuery(NamedTuple):
    """The parts of a list that a client asks for."""

    state: State | None
    """None: all states."""
    limit: int
    cursor: str
    """Empty for the first page."""


def list_query(request: Request) -> ListQuery:
    """The query of a request. Of a parameter that is given twice, the first value counts.

    Raises:
        BindingError: 422, a value is wrong.
    """
    faults = []
    given = {name: values[0] for name, values in request.query.items()}
    state, limit, cursor = given.get("state", ""), given.get("limit", str(DEFAULT_LIMIT)), given.get("cursor", "")
    if state and state not in JOB_STATES:
        faults.append(("query.state", f"it is one of {', '.join(JOB_STATES)}, not {state[:40]!r}"))
    if not re.fullmatch(r"[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        faults.append(("query.limit", f"it is a whole number from 1 to {MAX_LIMIT}, not {limit[:40]!r}"))
    if faults:
        raise BindingError(faults)
    return ListQuery(State(state) if state else None, int(limit), cursor)
