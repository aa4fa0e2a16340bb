"""models/references.py: names, aliases and versions."""

from __future__ import annotations

import pytest

from tinysvc.models.errors import BadReference
from tinysvc.models.references import Reference, parse_reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("churn@production", Reference("churn", alias="production")),
        ("churn@7", Reference("churn", version=7)),
        ("Qwen2.5-7b_it@blue.1", Reference("Qwen2.5-7b_it", alias="blue.1")),
    ],
)
def test_reference_is_read(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    ["", "churn", "churn@", "@production", "churn@0", "churn@07", "churn@-1", "churn@7.1", "churn@1234567890",
     "churn@a/b", "../x@a", ".x@a", "a/b@c", "a@b@c", "ch\u00fcrn@a", "churn@a\n", "churn@\u0667", "a" * 101 + "@b"],
)  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadReference, match="not '"):
        parse_reference(text)
