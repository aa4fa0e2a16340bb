"""job_verbs.py: the paths of the requests that a job route serves."""

from __future__ import annotations

import pytest

from tinysvc.service.job_verbs import VERB, VERBS
from tinysvc.service.router import Router


@pytest.mark.parametrize(
    ("route", "verb", "path"),
    [
        ("/trainings", "submit", "/trainings"),
        ("/trainings", "status", "/trainings/{job_id}"),
        ("/users/{user}/trainings", "result", "/users/{user}/trainings/{job_id}/result"),
        ("/trainings/", "submit", "/trainings/"),
        ("/trainings/", "retry", "/trainings/{job_id}/retry"),
        ("/", "submit", "/"),
        ("/", "cancel", "/{job_id}"),
    ],
)
def test_path_of_a_verb(route: str, verb: str, path: str) -> None:
    assert VERB[verb].path(route) == path  # type: ignore[index]


def test_each_verb_has_its_own_method_and_path() -> None:
    router: Router[str] = Router()
    for verb in VERBS:
        router.add(verb.path("/trainings"), [verb.method], verb.name, test_path_of_a_verb)
    found = [router.match(verb.method, verb.path("/trainings").replace("{job_id}", "4f2a")) for verb in VERBS]
    assert [name for name, _ in found] == [verb.name for verb in VERBS] == list(VERB)
