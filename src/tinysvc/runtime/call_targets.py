"""Where a called handler runs: at an address of the setting `services`, else here, in the service on this event loop.

An address wins over a mount, so that a test can force the network. A handler with neither is a ConfigurationError: at
start-up where the code names it in a call (call_checks.py), else at its first call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary, ref

from ..binding.outgoing import RequestWriter
from ..binding.replies import ReplyReader
from ..client.deadlines import Deadlines
from ..core.call_errors import CallUnavailable
from ..core.errors import ConfigurationError
from ..service.plan import Plan, plan_of
from ..service.routes import Route, call_method, route_of
from . import local_exchange
from .call_context import LONGEST, CallContext, time_for
from .direct_calls import DirectCpu, DirectIo, is_direct
from .exchanges import Exchange, ExchangeTarget, RemoteExchange
from .job_calls import JobExchange, JobTarget
from .message_calls import CalleeMessages, FindMessages, Reader, TranslatedExchange, Writer
from .open_services import service_name

if TYPE_CHECKING:
    from ..client.services import Services
    from ..telemetry.recorded_spans import Recorder
    from .cpu_calls import CpuCall


class Serving(local_exchange.Serving, Protocol):
    """A running service."""

    calls: dict[Callable[..., Any], CpuCall]
    durable_pools: dict[Callable[..., Any], object]


class Target(Protocol):
    """A handler that can be called."""

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]: ...

    async def value(self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...]) -> Any: ...

    def items(
        self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...], seconds: float
    ) -> AsyncGenerator[Any, None]: ...


class Callee(NamedTuple):
    """A called handler."""

    target: Target
    seconds: float
    """For a call whose caller has no deadline."""
    is_remote: bool
    pool: object = None
    """The pool of a cpu handler that runs here, else None."""


class WorkerCallee(NamedTuple):
    """A handler that a worker calls: always by a request."""

    exchange: Exchange
    service: str
    prefix: str
    """Of the path where the handler is mounted."""
    pool: object
    """The pool of a cpu handler that runs here, else None."""
    seconds: float
    """As in Callee."""


class CallTable:
    """The handlers that the code of one running service can call.

    Args:
        running: The service.
        services: The services at addresses; None if it names none.
        plans: The routes that are served here.
        recorder: Takes the spans of calls; None: they are not recorded.
        find_messages: Finds how handlers are called over gRPC. None: they are not.
    """

    def __init__(
        self,
        running: Serving,
        services: Services | None,
        plans: Iterable[Plan] = (),
        recorder: Recorder | None = None,
        find_messages: FindMessages | None = None,
    ) -> None:
        self._find_messages = find_messages
        self._recorder = recorder
        self.known: dict[Callable[..., Any], Callee] = {}
        self.deadlines = Deadlines()
        self._running = running
        self._services = services
        self._plans: dict[Callable[..., Any], Plan] = {}
        for plan in plans:
            self._plans.setdefault(plan.route.function, plan)  # of several routes, the first
        self._resources: dict[Callable[..., Any], Mapping[str, Any]] = {}

    def mount(self, function: Callable[..., Any], resources: Mapping[str, Any]) -> None:
        """The resources of the whole server that a handler takes are open."""
        self._resources.setdefault(function, resources)

    def check(self, called: Iterable[tuple[Callable[..., Any], str, bool]]) -> None:
        """Check the handlers that the code of the service calls (call_checks.py), before anything is open.

        Raises:
            ConfigurationError: A handler has neither an address nor a mount, or a value of it cannot travel. Or it is
                submitted, and is no job route.
        """
        for function, where, submits in called:
            route = route_of(function)
            if submits and route is not None and route.durable is None:
                raise not_submittable(function, where)
            name = self._address_of(function)
            if name:
                self.find(function)
            elif not any(function in table._plans for table in _tables_here()):
                raise unknown_callee(function, self.addressed, where)

    @property
    def addressed(self) -> Iterable[str]:
        """The names of the services at addresses."""
        return () if self._services is None else self._services.addresses

    def _address_of(self, function: Callable[..., Any]) -> str:
        """The name of the service at an address that has this handler, or ""."""
        named = self._services.addresses if self._services is not None else ()
        service = service_name(function, named)
        return service if service in named else ""

    def find(self, function: Callable[..., Any]) -> Callee | None:
        """The handler, as it is called; None if it has neither an address nor a mount.

        Raises:
            ConfigurationError: A parameter or the result cannot travel.
        """
        route = route_of(function)
        if route is None:
            return None
        found: Callee | None
        if service := self._address_of(function):
            found = self._remote(service, route)
        else:
            plan, service = self._plans.get(function), service_name(function)
            if plan is not None and function not in self._resources:
                raise CallUnavailable(f"{function.__qualname__} is not ready: the server starts.", service=service)
            found = self._local(service, plan) if plan else None
        if found is not None:
            self.known[function] = found
        return found

    def _remote(self, service: str, route: Route) -> Callee:
        assert self._services is not None
        if (messages := self._messages_of(service, route)) is not None:
            exchange = self._remote_exchange(service, route, messages)
            return self._callee(route, self._target(route, messages.writer, messages.reader, exchange, service), True)
        function = route.function
        binder = plan_of(function, route).binder
        writer = RequestWriter(function, call_method(route, binder.body_kind), route.path, binder.inputs)
        exchange = self._remote_exchange(service, route)
        reader = ReplyReader(function, batched=route.batch is not None)
        return self._callee(route, self._target(route, writer, reader, exchange, service), True)

    def _messages_of(self, service: str, route: Route) -> CalleeMessages | None:
        """How a handler of a service is called over gRPC; None for HTTP. ConfigurationError if it cannot be."""
        assert self._services is not None
        if not self._services.addresses[service][0].is_rpc:
            return None
        if self._find_messages is None:
            raise ConfigurationError.at(route.function, "cannot be called over gRPC outside of a tinysvc server")
        return self._find_messages(route.function, route)

    def _remote_exchange(self, service: str, route: Route, messages: CalleeMessages | None = None) -> Exchange:
        assert self._services is not None
        streams = messages is not None and messages.streams
        exchange = RemoteExchange(self._services, service, route, streams=streams)
        return self._recorded(exchange, route.function, service, over_rpc=messages is not None)

    def _local(self, service: str, plan: Plan) -> Callee:
        route, function, settings = plan.route, plan.route.function, self._running.settings
        reader = ReplyReader(function, batched=route.batch is not None, travels=False)
        if not is_direct(plan, reader, settings):
            writer = RequestWriter(function, call_method(route, plan.binder.body_kind), plan.path, plan.binder.inputs)
            exchange = self._recorded(local_exchange.LocalExchange(self._running, service), function, service)
            return self._callee(route, self._target(route, writer, reader, exchange, service), False)
        target: DirectIo | DirectCpu
        if route.kind == "io":
            target = DirectIo(plan, service, self._resources[function], self.deadlines)
        else:
            target = DirectCpu(plan, service, self._running.calls[function])
        if self._recorder is not None:
            from .traced_calls import TracedDirect  # imported only with traces

            return self._callee(route, TracedDirect(target, self._recorder), False)
        return self._callee(route, target, False)

    def _recorded(
        self, exchange: Exchange, function: Callable[..., Any], service: str, *, over_rpc: bool = False
    ) -> Exchange:
        """The exchange, which records its requests if traces are on."""
        if self._recorder is None:
            return exchange
        from .traced_calls import TracedExchange  # imported only with traces

        handler = f"{function.__module__}.{function.__qualname__}"
        return TracedExchange(exchange, self._recorder, handler, service, over_rpc=over_rpc)

    def _target(self, route: Route, writer: Writer, reader: Reader, exchange: Exchange, service: str) -> Target:
        """Where requests to the handler go."""
        if route.durable is None:
            return ExchangeTarget(route, writer, reader, exchange, service, self._max_size)
        seconds = self._running.settings.call_timeout or LONGEST
        return JobTarget(route, writer, reader, exchange, service, self._max_size, seconds)

    def callee_for_worker(self, function: Callable[..., Any]) -> WorkerCallee:
        """The handler, as a worker calls it. ConfigurationError if it is not known here."""
        found, route = self.known.get(function) or self.find(function), route_of(function)
        if found is None or route is None:
            raise unknown_callee(function, self.addressed)
        if found.is_remote:
            assert self._services is not None
            service = service_name(function, self._services.addresses)
            if (messages := self._messages_of(service, route)) is not None:
                exchange = self._remote_exchange(service, route, messages)
                binder = plan_of(function, route).binder
                translated = TranslatedExchange(route, binder, messages, exchange, service, self._max_size)
                return WorkerCallee(translated, service, "", None, found.seconds)
            exchange = self._remote_exchange(service, route)
            exchange = exchange if route.durable is None else JobExchange(exchange, service)
            return WorkerCallee(exchange, service, "", None, found.seconds)
        service = service_name(function)
        exchange = self._recorded(local_exchange.LocalExchange(self._running, service), function, service)
        exchange = exchange if route.durable is None else JobExchange(exchange, service)
        return WorkerCallee(exchange, service, self._plans[function].mount.prefix, found.pool, found.seconds)

    def _pool_of(self, route: Route) -> object:
        if route.durable is not None:
            return self._running.durable_pools.get(route.function)
        job = self._running.calls.get(route.function)
        return job.pool if job is not None and route.kind == "cpu" else None

    @property
    def _max_size(self) -> int:
        return self._running.settings.max_result_size

    def _callee(self, route: Route, target: Target, is_remote: bool) -> Callee:
        seconds = LONGEST if route.durable else time_for(route.timeout, self._running.settings.call_timeout)
        return Callee(target, seconds, is_remote, None if is_remote else self._pool_of(route))


_tables: WeakKeyDictionary[asyncio.AbstractEventLoop, list[CallTable]] = WeakKeyDictionary()
_last: tuple[Any, list[CallTable]] = None, []  # the loop that was asked last: a weak dictionary is slow


@contextmanager
def callable_from_here(table: CallTable) -> Iterator[None]:
    """While the block runs, code on this loop can call the handlers of the table."""
    here = _tables_here()
    here.append(table)
    try:
        yield
    finally:
        here[:] = [each for each in here if each is not table]
        table.deadlines.cancel()


def _tables_here() -> list[CallTable]:
    global _last
    loop = asyncio.get_running_loop()
    known, tables = _last
    if known is None or known() is not loop:
        tables = _tables.setdefault(loop, [])
        _last = ref(loop), tables
    return tables


def callee_of(function: Callable[..., Any]) -> Callee:
    """The handler, as it is called from this event loop. ConfigurationError if it is not known here."""
    try:
        tables = _tables_here()
    except RuntimeError:
        raise ConfigurationError.at(
            function,
            "cannot be called by call(...) here, where no event loop runs; in a cpu handler, and in an io handler that "
            "is a plain def, write `call.wait(...)`",
        ) from None
    for table in reversed(tables):
        if found := table.known.get(function) or table.find(function):
            return found
    raise unknown_callee(function, [name for table in tables for name in table.addressed])


def not_submittable(function: Callable[..., Any], where: str = "") -> ConfigurationError:
    """The error of a submission to a handler that is no job route; `where` is file and line of the submission."""
    return ConfigurationError.at(
        function,
        f"cannot be submitted{f' in {where}' if where else ''}: it has no @job_route; give it one, or call it by "
        "`await call(...)`",
    )


def unknown_callee(function: Callable[..., Any], addressed: Iterable[str] = (), where: str = "") -> ConfigurationError:
    """The error of a call to a handler that is neither here nor at an address.

    Args:
        function: The handler.
        addressed: The names of the services at addresses.
        where: File and line of the call.
    """
    if isinstance(function, ModuleType) or not callable(function) or route_of(function) is None:
        name = getattr(function, "__qualname__", repr(function))
        return ConfigurationError.at(
            function, f"cannot be called by call(...): it has no route; decorate {name} with @io_route or @cpu_route"
        )
    service, known = service_name(function), ", ".join(sorted(set(addressed)))
    return ConfigurationError.at(
        function,
        f"cannot be called{f' in {where}' if where else ''}: it is not served here, and `services` has no address of "
        f"{service}{f', only of {known}' if known else ''}; name its module in the Service(...), or say where it runs: "
        f'TINYSVC_SERVICES="{service}=http://host:8000"',
    )
