"""Names of artifacts, aliases and versions: `churn@production` and `churn@7`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import BadReference

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
"""Safe as a folder of each file system and as a part of a URL. A name cannot be hidden or leave its folder."""
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}", re.ASCII)
"""Begins with a letter: a number is a version."""
VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """An artifact under an alias, or one version of it: one of `alias` and `version` is set."""

    name: str
    alias: str = ""
    version: int = 0

    def __str__(self) -> str:
        return f"{self.name}@{self.alias or self.version}"


def parse_reference(text: str) -> Reference:
    """Read `name@alias` or `name@version`.

    Raises:
        BadReference: The text has another form.
    """
    name, at, rest = text.partition("@")
    if not at:
        raise BadReference(f"expected NAME@ALIAS or NAME@VERSION, as in churn@production or churn@7, not {text!r}")
    check_name(name)
    if VERSION.fullmatch(rest):
        return Reference(name, version=int(rest))
    check_alias(rest)
    return Reference(name, alias=rest)


def check_name(name: str) -> str:
    """Return a valid name of an artifact.

    Raises:
        BadReference: It is not valid.
    """
    return _checked(name, NAME, "the name of an artifact", "begins with a letter or digit")


def check_alias(alias: str) -> str:
    """Return a valid alias.

    Raises:
        BadReference: It is not valid.
    """
    return _checked(alias, ALIAS, "an alias", "begins with a letter")


def _checked(text: str, pattern: re.Pattern[str], what: str, begins: str) -> str:
    if not pattern.fullmatch(text):
        raise BadReference(f"{what} {begins} and has up to 100 letters, digits, '.', '_' and '-', not {text!r}")
    return text
