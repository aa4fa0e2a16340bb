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
    ("arguments", "sentence"),
    [
        ({"reference": "churn"}, r"Artifact\('churn'\): .*churn@production"),
        ({"reference": "../churn@1"}, r"Artifact\('../churn@1'\)"),
        ({"reference": 7}, r"Artifact\(7\)"),
        ({"reference": "churn@7", "swap": "fast"}, r'"live" or "drain", not .fast'),
        ({"reference": "churn@7", "allow_pickle": "no"}, "True or False, not 'no'"),
    ],
)
def test_wrong_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Artifact(**arguments)
