"""core/settings.py: the sources of a value, and the messages for wrong values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tinysvc.core.settings import Pool, Settings, SettingsError, load_settings


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
        ({"host": 1}, "host takes a text, not 1"),
        ({"header_timeout": -0.5}, "header_timeout must be at least 0, not -0.5"),
        ({"port": True}, "port takes a whole number, not True"),
        ({"pools": "training:worker=1"}, "'worker' is no option of the pool training; did you mean workers?"),
        ({"pools": "gpu:zzz=1"}, "'zzz' is no option of the pool gpu; it knows workers, queue_size, max_jobs"),
        ({"pools": "gpu:workers"}, "workers of the pool gpu takes a whole number, as in workers=2, not ''"),
        ({"pools": "gpu:workers=two"}, "workers of the pool gpu takes a whole number, as in workers=2, not 'two'"),
        ({"pools": "gpu:workers=0"}, "workers of the pool gpu must be at least 1, not 0"),
        ({"pools": "gpu:queue_size=-1"}, "queue_size of the pool gpu must be at least 0, not -1"),
        ({"pools": "gpu:workers=1,workers=2"}, "the pool gpu has workers twice"),
        ({"pools": "gpu:workers=1 gpu:queue_size=2"}, "pools has gpu twice; write all its fields behind one gpu:"),
        ({"pools": ":workers=1"}, "a pool's name is made of letters, digits and _.-, as in .*, not ''"),
        ({"pools": "workers=1"}, "a pool's name is made of .*, not 'workers=1'"),
        ({"pools": {"a b": Pool()}}, "a pool's name is made of .*, not 'a b'"),
        ({"pools": {"gpu": 2}}, r"the pool gpu takes Pool\(\.\.\.\) or a concurrent\.futures\.Executor, not 2"),
        ({"pools": 3}, "pools takes a mapping, as in {.*}, or a text, not 3"),
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


def test_pool_field_is_checked() -> None:
    with pytest.raises(SettingsError, match="workers of a pool must be at least 1, not 0"):
        Pool(workers=0)
    with pytest.raises(SettingsError, match=r"queue_size of a pool takes a whole number, not '2' \(str\)"):
        Pool(queue_size="2")  # type: ignore[arg-type]


def test_pools_are_read_from_a_text() -> None:
    pools = load_settings({"pools": " training:workers=1,queue_size=2  gpu:max_memory=5 plain "}, {}).pools
    assert pools == {"training": Pool(workers=1, queue_size=2), "gpu": Pool(max_memory=5), "plain": Pool()}
    assert load_settings({}, {"TINYSVC_POOLS": ""}).pools == {}


def test_each_field_of_a_pool_is_looked_up_separately() -> None:
    service = {"pools": {"training": Pool(workers=1, queue_size=2, max_jobs=3), "gpu": Pool(workers=1)}}
    environ = {"TINYSVC_POOLS": "training:workers=10,queue_size=20"}
    pools = load_settings({"pools": "training:workers=100 more"}, environ, service).pools
    assert pools == {
        "training": Pool(workers=100, queue_size=20, max_jobs=3),
        "gpu": Pool(workers=1),
        "more": Pool(),
    }


def test_missing_field_of_a_pool_is_that_of_the_default_pool() -> None:
    settings = Settings(cpu_workers=3, queue_size=5, max_jobs=7, memory_limit=9, pools={"a": Pool(workers=1)})
    default = {"workers": 3, "queue_size": 5, "max_jobs": 7, "max_memory": 0, "memory_limit": 9}
    assert settings.pool("default") == default
    assert settings.pool("a") == default | {"workers": 1}


def test_fields_of_the_default_pool_are_options() -> None:
    service = {"cpu_workers": 5, "pools": {"default": Pool(workers=1, queue_size=2)}}

    def options_of(overrides: dict[str, Any]) -> tuple[int, int]:
        pool = load_settings(overrides, {}, service).pool("default")
        return pool["workers"], pool["queue_size"]

    assert options_of({}) == (1, 2)
    assert options_of({"cpu_workers": 4}) == (4, 2)
    assert options_of({"pools": "default:queue_size=6"}) == (1, 6)


def test_executor_replaces_a_pool() -> None:
    executor = ThreadPoolExecutor(1)
    service = {"pools": {"default": executor, "gpu": executor}}
    assert load_settings({}, {}, service).pools == {"default": executor, "gpu": executor}
    settings = load_settings({"pools": "default gpu:workers=1"}, {}, service)
    assert settings.pools == {"gpu": Pool(workers=1)}  # the flag is stronger


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
