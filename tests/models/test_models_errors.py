"""models/errors.py: the sentences of the errors."""

from __future__ import annotations

from tinysvc.core.errors import ConfigurationError
from tinysvc.models.alias_entries import AliasEntry
from tinysvc.models.errors import AliasMoved, PickleRefused, StoreRefused


def test_moved_alias_names_the_version_that_won() -> None:
    entry = AliasEntry(8, "ada", 0.0, 3)
    assert str(AliasMoved("churn@production", entry, 7)) == (
        "churn@production names version 8, not version 7: it was moved by ada at 1970-01-01T00:00:00Z."
    )
    assert str(AliasMoved("churn@production", entry)).startswith("churn@production names version 8: it was moved")
    assert "does not exist; it was expected to name version 7" in str(AliasMoved("churn@production", None, 7))


def test_refused_pickles_are_named() -> None:
    error = PickleRefused("churn@7", ("a.pkl", "b.pt", "c", "d", "e"))
    assert "churn@7 has pickles (a.pkl, b.pt, c and 2 more)" in str(error)
    assert "allow_pickle=True" in str(error)


def test_refused_store_is_a_mistake_in_the_configuration() -> None:
    assert issubclass(StoreRefused, ConfigurationError)
