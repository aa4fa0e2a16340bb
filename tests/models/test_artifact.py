"""artifact.py: the marker says at once what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.models.artifact import Artifact


@pytest.mark.parametrize("reference", ["churn@production", "churn@7"])
def test_alias_and_version_are_references(reference: str) -> None:
    assert Artifact(reference) == Artifact(reference, swap="live", allow_pickle=False)


@pytest.mark.parametrize(
    ("options", "is_candidate"),
    [
        ({}, False),
        ({"shadow": 0}, True),
        ({"shadow": 0.1, "compare": max}, True),
        ({"share": 1, "sticky": "X-User"}, True),
    ],
)
def test_candidate_has_a_share_or_a_shadow(options: dict[str, Any], is_candidate: bool) -> None:
    assert Artifact("churn@candidate", **options).is_candidate == is_candidate


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"reference": "churn"}, r"Artifact\('churn'\): .*churn@production"),
        ({"reference": "../churn@1"}, r"Artifact\('../churn@1'\)"),
        ({"reference": 7}, r"Artifact\(7\)"),
        ({"reference": "churn@7", "swap": "fast"}, r'"live" or "drain", not .fast'),
        ({"reference": "churn@7", "allow_pickle": "no"}, "True or False, not 'no'"),
        ({"reference": "churn@7", "shadow": 0.1, "share": 0.1}, "has shadow and share; leave one"),
        ({"reference": "churn@7", "shadow": 2}, "shadow of an Artifact is a number from 0 to 1, not 2"),
        ({"reference": "churn@7", "share": True}, "share of an Artifact is a number from 0 to 1, not True"),
        ({"reference": "churn@7", "share": 0.1, "swap": "drain"}, "not of a candidate"),
        ({"reference": "churn@7", "share": 0.1, "compare": max}, "compare is a function of two contents, and needs"),
        ({"reference": "churn@7", "shadow": 0.1, "compare": 3}, "compare is a function of two contents"),
        ({"reference": "churn@7", "shadow": 0.1, "sticky": "X-User"}, "name of a request header, and needs share="),
        ({"reference": "churn@7", "share": 0.1, "sticky": "X User"}, "name of a request header"),
        ({"reference": "churn@7", "sticky": "X-User"}, "sticky needs share="),
        ({"reference": "churn@7", "compare": max}, "compare needs shadow="),
    ],
)
def test_wrong_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Artifact(**arguments)
