"""list_queries.py: state, limit and cursor of a list."""

from __future__ import annotations

import pytest

from tinysvc import Request
from tinysvc.core.errors import BindingError
from tinysvc.jobs.records import State
from tinysvc.jobs.requests.list_queries import ListQuery, list_query
from tinysvc.service.job_verbs import DEFAULT_LIMIT, MAX_LIMIT


def query(text: str) -> ListQuery:
    return list_query(Request("GET", "/trainings", text))


def test_empty_query_is_the_first_page_of_all_states() -> None:
    assert query("") == query("state=&other=1") == ListQuery(None, DEFAULT_LIMIT, "")


def test_first_of_several_values_counts() -> None:
    found = query(f"state=failed&limit={MAX_LIMIT}&cursor=7&state=queued&limit=1&cursor=8")
    assert found == ListQuery(State.FAILED, MAX_LIMIT, "7")


@pytest.mark.parametrize("limit", ["0", str(MAX_LIMIT + 1), "-1", "1.5", "%D9%A3", "99999"])
def test_limit_outside_its_range_is_422(limit: str) -> None:
    with pytest.raises(BindingError, match=f"whole number from 1 to {MAX_LIMIT}"):
        query(f"limit={limit}")


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(BindingError) as caught:
        query("state=done&limit=many")
    assert [place for place, _ in caught.value.faults] == ["query.state", "query.limit"]
