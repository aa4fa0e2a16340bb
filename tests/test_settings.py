"""settings.py: where a value comes from, and what is wrong with it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tinysvc.settings import SettingsError, load_settings


def test_the_order_of_sources() -> None:
    environ = {"TINYSVC_PORT": "2", "TINYSVC_QUEUE_SIZE": "20", "HOME": "/"}
    service = {"port": 1, "queue_size": 10, "cpu_timeout": 5}
    settings = load_settings({"port": 3, "host": None}, environ, service)
    assert (settings.port, settings.queue_size, settings.cpu_timeout, settings.host) == (3, 20, 5.0, "127.0.0.1")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prot": 1}, "'prot' is no option of tinysvc; did you mean port?"),
        ({"zzz": 1}, "'zzz' is no option of tinysvc; it knows host, port"),
        ({"port": "80"}, r"port takes a whole number, not '80' \(str\)"),
        ({"port": 65536}, "port takes a number from 0 to 65535, not 65536"),
        ({"cpu_workers": 0}, "cpu_workers must be at least 1, not 0"),
        ({"log_level": "loud"}, "log_level takes debug, info, warning or error, not 'loud'"),
        ({"host": 1}, "host takes a text, not 1"),
        ({"header_timeout": -0.5}, "header_timeout must be at least 0, not -0.5"),
        ({"port": True}, "port takes a whole number, not True"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(options, {})


def test_the_page_of_options_is_what_the_table_says() -> None:
    docs = Path(__file__).parent.parent / "docs"
    page = runpy.run_path(str(docs / "options.py"))["page"]()
    assert (docs / "options.md").read_text() == page, "run: python docs/options.py"
