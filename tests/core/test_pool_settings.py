"""core/pool_settings.py: the named pools, from a text or a mapping, and the messages for wrong values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tinysvc.core.pool_settings import Pool
from tinysvc.core.setting_values import SettingsError
from tinysvc.core.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("options", "says"),
    [
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
    ],
)
def test_wrong_pool_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(options, {})


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
