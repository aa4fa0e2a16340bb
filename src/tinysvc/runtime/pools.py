"""The worker pools of a service: which cpu routes run in which pool, and what kind of pool that is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from ..core.errors import ConfigurationError
from ..core.pool_settings import DEFAULT_POOL
from ..core.settings import Settings
from ..executor import ProcessPoolExecutor
from ..pool.program import SharedMemory
from ..service.plan import Plan
from ..service.routes import Route
from .cpu_endpoints import CpuProgram

if TYPE_CHECKING:
    from ..pool.external import ExternalPool

log = logging.getLogger("tinysvc")


def routes_by_pool(plans: list[Plan], settings: Settings) -> dict[str, list[Plan]]:
    """The cpu routes of each pool that has any. ConfigurationError for a route whose pool is not configured."""
    known = {DEFAULT_POOL: None, **settings.pools}
    routes: dict[str, list[Plan]] = {}
    for plan in plans:
        route = plan.route
        if route.kind == "cpu":
            _check_pool(route, known)
            routes.setdefault(route.pool, []).append(plan)
    if unused := ", ".join(name for name in settings.pools if name not in routes):
        log.warning("no cpu route uses these pools, so they are not started: %s", unused)
    return routes


def _check_pool(route: Route, known: Mapping[str, object]) -> None:
    if route.pool not in known:
        remedy = f'name one of these, or add Service(pools={{"{route.pool}": Pool(...)}}) or --pools {route.pool}'
        raise ConfigurationError.at(
            route.function, f"there is no pool {route.pool!r}; there is: {', '.join(known)}; {remedy}"
        )


def create_pool(
    name: str,
    program: CpuProgram,
    settings: Settings,
    inherited: Sequence[int] = (),
    shared: SharedMemory | None = None,
) -> ProcessPoolExecutor | ExternalPool:
    """A pool that is not started yet: worker processes, the author's executor, or threads with `cpu_workers=0`.

    `inherited` are descriptors that the worker processes hold while they live. `shared` is memory that each of them
    shares with the server.
    """
    executor = settings.pools.get(name)
    options = settings.pool(name)
    if isinstance(executor, Executor):
        from ..pool.external import ExternalPool  # imported only where a service brings an executor

        return ExternalPool(executor, program, name=name, queue_size=options["queue_size"], label=program.label)
    if not settings.cpu_workers:
        from ..pool.in_process import InProcessPool  # imported only in a server without workers

        return InProcessPool(program, name=name, queue_size=options["queue_size"], label=program.label)
    return ProcessPoolExecutor(
        options.pop("workers"),
        **options,
        max_result_size=settings.max_result_size,
        program=program,
        inherited=inherited,
        shared=shared,
        name=name,
        label=program.label,
    )
