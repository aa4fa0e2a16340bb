"""The values of options: what each kind of option takes, and the sentences about wrong ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from .errors import ConfigurationError

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class SettingsError(ConfigurationError):
    """An option, variable or flag that is unknown or has a wrong value."""


def check_value(name: str, value: Any, kind: type[Any], least: int) -> None:
    if type(value) is not kind:
        raise SettingsError(f"{name} takes {_a(kind)}, not {value!r} ({type(value).__name__})")
    if kind in (int, float) and not value >= least:
        raise SettingsError(f"{name} must be at least {least}, not {value!r}")


def _a(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]


def read_bool(text: str) -> bool:
    """True for 1, true, yes and on; False for 0, false, no and off. ValueError for another word."""
    if text.lower() not in _WORDS:
        raise ValueError(text)
    return _WORDS[text.lower()]


def wrong_value(kind: type, text: str) -> str:
    """The end of a sentence: which kind of value was expected, and the text that came."""
    has_unit = kind in (int, float) and text[:1].isdigit()
    return f"takes {_a(kind)}, not {text!r}" + ("; sizes are bytes, times are seconds" if has_unit else "")


def did_you_mean(name: str, names: Iterable[str], written: Callable[[str], str] = str) -> str:
    """The end of a sentence about an unknown name. `written` spells a known name as the user would write it."""
    names = list(names)
    if not names:
        return ""
    match = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {written(match[0])}?" if match else f"; it knows {', '.join(map(written, names))}"
