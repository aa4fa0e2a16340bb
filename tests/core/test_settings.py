"""core/settings.py: the sources of a value, and the messages for wrong values."""

from __future__ import annotations

from typing import Any

import pytest

from tinysvc.core.setting_values import SettingsError
from tinysvc.core.settings import Settings, load_settings


def test_order_of_the_sources() -> None:
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
        ({"cpu_workers": -1}, "cpu_workers must be at least 0, not -1"),
        ({"log_level": "loud"}, "log_level takes debug, info, warning or error, not 'loud'"),
        ({"metrics": "9100"}, "metrics takes host:port, unix:path or a path, as in 127.0.0.1:9100, .*, not '9100'"),
        ({"grpc": "here"}, "grpc takes a port, host:port or unix:path, as in 50051, .*, not 'here'"),
        ({"grpc": "99999"}, "grpc takes a port, host:port or unix:path, .*, not '99999'"),
        ({"grpc": "unix:/a", "workers": 2}, "2 server processes cannot share a Unix socket for gRPC; use workers=1"),
        ({"host": 1}, "host takes a text, not 1"),
        ({"header_timeout": -0.5}, "header_timeout must be at least 0, not -0.5"),
        ({"port": True}, "port takes a whole number, not True"),
        ({"half_close": 1}, r"half_close takes true or false, not 1 \(int\)"),
        ({"unix_mode": "rw"}, "unix_mode takes octal digits, as in 660, not 'rw'"),
        ({"ssl_key": "key.pem"}, "ssl_key and ssl_ca need an ssl_cert"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"max_jobs": -1}, "max_jobs must be at least 0, not -1"),
    ],
)
def test_wrong_option_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(options, {})


@pytest.mark.parametrize(
    ("environ", "service", "says"),
    [
        ({"TINYSVC_PORT": "70000"}, {"port": 1}, r"not 70000 \(TINYSVC_PORT\)$"),
        ({}, {"port": 70000}, r"not 70000 \(Service\(\.\.\.\)\)$"),
        ({"TINYSVC_SSL_KEY": "a.pem"}, {}, r"ssl_key and ssl_ca need an ssl_cert.* \(TINYSVC_SSL_KEY\)$"),
        (
            {"TINYSVC_MAX_BODY_SIZE": "16MiB"},
            {},
            "TINYSVC_MAX_BODY_SIZE takes a whole number, not '16MiB'; sizes are b",
        ),
        ({"TINYSVC_PORT": "x"}, {}, "TINYSVC_PORT takes a whole number, not 'x'$"),
    ],
)
def test_error_names_the_source_of_a_wrong_value(environ: dict[str, str], service: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings({}, environ, service)


def test_error_does_not_name_an_overridden_source() -> None:
    with pytest.raises(SettingsError, match=r"not 70000$"):
        load_settings({"port": 70000}, {"TINYSVC_PORT": "1"})


@pytest.mark.parametrize(("word", "value"), [("1", True), ("Yes", True), ("false", False), ("OFF", False)])
def test_variable_takes_yes_and_no(word: str, value: bool) -> None:
    assert load_settings({}, {"TINYSVC_HALF_CLOSE": word}).half_close is value


def test_variable_refuses_another_word() -> None:
    with pytest.raises(SettingsError, match="TINYSVC_HALF_CLOSE takes true or false, not 'perhaps'"):
        load_settings({}, {"TINYSVC_HALF_CLOSE": "perhaps"})


def test_services_are_a_text_or_a_mapping() -> None:
    text = "shop=http://a:8001,http://b:8001 training=unix:/run/t.sock"
    mapping = {"shop": ["http://a:8001", "http://b:8001"], "training": "unix:/run/t.sock"}
    assert Settings(services=text).services == Settings(services=mapping).services == text  # type: ignore[arg-type]
    assert load_settings({}, {"TINYSVC_SERVICES": text}, {"services": mapping}).services == text
    with pytest.raises(SettingsError, match="services takes a text"):
        Settings(services=7)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="services_key needs a services_cert"):
        Settings(services_key="key.pem")


@pytest.mark.parametrize("value", ["otlp", "http://127.0.0.1:4318", "https://collector/v1/traces"])
def test_place_of_traces(value: str) -> None:
    assert Settings(traces=value).traces == value


@pytest.mark.parametrize("value", ["true", "127.0.0.1:4318", "ftp://a", "http://", "http://a b", "http://a/?x"])
def test_wrong_place_of_traces_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="traces takes otlp or a URL"):
        Settings(traces=value)


@pytest.mark.parametrize("value", [1.5, float("nan"), -0.1])
def test_share_of_traced_requests_is_at_most_one(value: float) -> None:
    with pytest.raises(SettingsError, match=r"^trace_sample"):
        Settings(trace_sample=value)
