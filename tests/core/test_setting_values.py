"""core/setting_values.py: the sentences about wrong values."""

from __future__ import annotations

import pytest

from tinysvc.core.setting_values import SettingsError, check_value, did_you_mean, read_bool, wrong_value


def test_close_name_is_suggested_and_else_all_are_listed() -> None:
    assert did_you_mean("prot", ["port", "host"], lambda name: f"--{name}") == "; did you mean --port?"
    assert did_you_mean("zzz", ["port", "host"]) == "; it knows port, host"
    assert did_you_mean("zzz", []) == ""


def test_value_of_another_kind_or_too_small_is_refused() -> None:
    check_value("port", 1, int, 1)
    with pytest.raises(SettingsError, match=r"port takes a whole number, not '80' \(str\)"):
        check_value("port", "80", int, 0)
    with pytest.raises(SettingsError, match="port must be at least 1, not 0"):
        check_value("port", 0, int, 1)


def test_unit_behind_a_number_is_explained() -> None:
    assert wrong_value(int, "5MB") == "takes a whole number, not '5MB'; sizes are bytes, times are seconds"
    assert wrong_value(float, "soon") == "takes a number, not 'soon'"


def test_bool_is_one_of_eight_words() -> None:
    assert [read_bool(word) for word in ("1", "TRUE", "yes", "on")] == [True] * 4
    assert [read_bool(word) for word in ("0", "False", "no", "OFF")] == [False] * 4
    with pytest.raises(ValueError, match="perhaps"):
        read_bool("perhaps")
