"""The options of the named pools, from a text or from Service(pools=...)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from concurrent.futures import Executor

from .setting_values import SettingsError, check_value, did_you_mean

DEFAULT_POOL = "default"
"""The pool of a cpu route without pool=."""

POOL_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""Names that `--pools` can hold without quotes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Options of a named pool. A field that is None has the value of the default pool, an option of the server.

    In `--pools` and `TINYSVC_POOLS` the same is written "training:workers=1,queue_size=2 gpu:workers=1".

    Args:
        workers: Worker processes; 1 or more.
        queue_size: Jobs that may wait for a worker; further ones get a 503.
        max_jobs: Jobs after which a worker is replaced; 0 for never.
        max_memory: Bytes (RSS) that a worker may hold after a job before it is replaced; 0 for any.
        memory_limit: Bytes of address space of a worker (RLIMIT_AS), else MemoryError; 0 for any.

    Raises:
        ConfigurationError: A field is no whole number, or too small.

    Example:
        ```python
        from tinysvc import Pool, Service, cpu_route

        @cpu_route("/train", methods=["POST"], pool="training", timeout=600)
        def train(rounds: int) -> float:
            return 1 / rounds

        service = Service(train, pools={"training": Pool(workers=1, queue_size=2)})
        ```
    """

    workers: int | None = None
    queue_size: int | None = None
    max_jobs: int | None = None
    max_memory: int | None = None
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            _check_field(name, "a pool", value)

    def given(self) -> dict[str, int]:
        """The fields that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


def option_of(field: str) -> str:
    """The option that sets a field of the default pool."""
    return "cpu_workers" if field == "workers" else field


def read_pools(pools: str | Mapping[str, Pool | Executor]) -> dict[str, Pool | Executor]:
    """The pools by name, from a text or a mapping. SettingsError if a pool is malformed."""
    if isinstance(pools, str):
        return _pools_in(pools)
    if not isinstance(pools, Mapping):
        raise SettingsError(f'pools takes a mapping, as in {{"training": Pool(workers=1)}}, or a text, not {pools!r}')
    for name, pool in pools.items():
        _check_pool_name(name)
        if not isinstance(pool, (Pool, Executor)):
            raise SettingsError(f"the pool {name} takes Pool(...) or a concurrent.futures.Executor, not {pool!r}")
    return dict(pools)


def _pools_in(text: str) -> dict[str, Pool | Executor]:
    pools: dict[str, Pool | Executor] = {}
    for part in text.split():
        name, _, fields = part.partition(":")
        _check_pool_name(name)
        if name in pools:
            raise SettingsError(f"pools has {name} twice; write all its fields behind one {name}:")
        pools[name] = Pool(**_fields_in(fields, name))
    return pools


def _fields_in(text: str, pool: str) -> dict[str, int]:
    known = {field.name: field for field in dataclasses.fields(Pool)}
    fields: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise SettingsError(f"{name!r} is no option of the pool {pool}{did_you_mean(name, known)}")
        if name in fields:
            raise SettingsError(f"the pool {pool} has {name} twice; leave one out")
        try:
            fields[name] = int(value)
        except ValueError:
            example = f"as in {name}=2"
            raise SettingsError(f"{name} of the pool {pool} takes a whole number, {example}, not {value!r}") from None
        _check_field(name, f"the pool {pool}", fields[name])
    return fields


def _check_field(name: str, pool: str, value: object) -> None:
    check_value(f"{name} of {pool}", value, int, 1 if name == "workers" else 0)


def _check_pool_name(name: object) -> None:
    if not isinstance(name, str) or not POOL_NAME.fullmatch(name):
        example = '"training:workers=1,queue_size=2 gpu:workers=1"'
        raise SettingsError(f"a pool's name is made of letters, digits and _.-, as in {example}, not {name!r}")


def merged_pool(weaker: Pool | Executor | None, stronger: Pool | Executor) -> Pool | Executor:
    """The fields of both pools; `stronger` wins."""
    if isinstance(weaker, Pool) and isinstance(stronger, Pool):
        return Pool(**weaker.given() | stronger.given())
    return stronger
