"""Service: routes, resources, pools, middleware and inner services, as an author declares them. It does not run."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple
from urllib.parse import urlencode

from ..binding.outgoing_texts import filled_path, text_of
from ..core.errors import ConfigurationError
from ..core.pool_settings import Pool, read_pools
from ..core.responses import Middleware
from ..core.setting_values import SettingsError, did_you_mean
from ..core.settings import Settings
from .error_handlers import ErrorHandler, checked
from .resources import in_order, names_per_request
from .route_options import checked_middleware
from .routes import Given, Resource, Route, recorded, unreachable

log = logging.getLogger("tinysvc")


class Mount(NamedTuple):
    """A service at its place: its whole prefix, and everything around it."""

    service: Service
    prefix: str
    middleware: tuple[Middleware, ...]
    """From the outermost to the innermost."""
    error_handlers: Mapping[type[Exception], ErrorHandler]
    """Those of the service and of the services around it; for one type, the innermost handler."""
    name: str
    """The name of the service in its documentation."""

    def path_of(self, route: Route) -> str:
        """The whole path of a route of the service."""
        path = self.prefix + route.path
        return path.rstrip("/") or "/" if self.prefix and route.path == "/" else path


class Service:
    """Routes and resources that are served together, with their options.

    A module with decorated functions is served without a `Service`; write one to compose modules, and for options.

    Args:
        *parts: Decorated functions, modules that hold some, and other services.
        prefix: Prefix of every path, as in "/notes".
        name: Name in the OpenAPI document. Empty: the name of the first module.
        description: Description in the OpenAPI document. Empty: the docstring of the first module.
        version: Version in the OpenAPI document. Empty: `__version__` of the first module, else "0".
        pools: Pools that cpu routes name, by name: a `Pool`, or any `concurrent.futures.Executor`.
        middleware: Middleware around all responses of the service, the first outermost.
        error_handlers: Functions by type of exception: `def f(request, error)` returns a `Response` or an `HTTPError`.
            A handler of the type itself, or of its nearest base, is called; for a cpu route in the worker.
        **options: Options of the server by name, see "Options and limits". Variables and flags override them.

    Raises:
        ConfigurationError: A part holds nothing to serve, an option is unknown or wrong, or two resources or two
            different pools have one name.

    Example:
        ```python
        from tinysvc import Service, cpu_route, io_route

        @io_route("/")
        async def index() -> str:
            return "welcome"

        @cpu_route("/square/{n}")
        def square(n: int) -> int:
            return n * n

        service = Service(index, square, prefix="/math", cpu_workers=2)
        assert service.url_for(square, n=3) == "/math/square/3"
        ```
    """

    is_part_of_module = False
    """Whether a module with such a service at its top level serves it beside its own routes; true for static files."""

    def __init__(
        self,
        *parts: object,
        prefix: str = "",
        name: str = "",
        description: str = "",
        version: str = "",
        pools: Mapping[str, Pool | Executor] | None = None,
        middleware: Iterable[Middleware] = (),
        error_handlers: Mapping[type[Exception], ErrorHandler] | None = None,
        **options: Any,
    ) -> None:
        _check_keywords(options)
        if prefix and (not prefix.startswith("/") or prefix.endswith("/") or "{" in prefix):
            raise ConfigurationError(f'prefix must begin with "/", not end with it, and hold no {{}}, not {prefix!r}')
        self.prefix = prefix
        self.name = name
        self.description = description
        self.version = version or "0"
        self.pools = read_pools(pools or {})
        self.middleware = checked_middleware(middleware)
        self.error_handlers = checked(error_handlers or {})
        self.options = {**options, "pools": self.pools}
        self.routes: list[Route] = []
        self._alike = defaultdict[tuple[str, tuple[str, ...]], list[Route]](list)  # only these can be equal
        self.resources: dict[str, Resource] = {}
        self.inner: list[Service] = []
        for part in parts:
            self._add(part)

    def _add(self, part: object) -> None:
        if isinstance(part, Service):
            self._add_inner(part)
        elif isinstance(part, types.ModuleType):
            self._add_module(part)
        elif callable(part) and recorded(part):
            for record in recorded(part):
                _check_on_top(part, record)
                self._add_record(record)
        else:
            raise ConfigurationError(
                f"a service consists of decorated functions, modules and services, but {part!r} is none of them; "
                "decorate the function with @io_route, @cpu_route or @job_route"
            )

    def _add_inner(self, inner: Service) -> None:
        """Pools serve the routes of all services that name them. Other options apply to the outermost service only."""
        for name, pool in inner.pools.items():
            if self.pools.setdefault(name, pool) != pool:
                raise ConfigurationError(
                    f"the pool {name} is configured twice, as {self.pools[name]!r} and as {pool!r}; "
                    "configure it once, or give one of the two another name"
                )
        if unused := {name: value for name, value in inner.options.items() if name != "pools"}:
            log.warning("the options %r of a service inside another service have no effect", unused)
        self.inner.append(inner)

    def _add_module(self, module: types.ModuleType) -> None:
        """The module's own routes, and the resources it defines or imports."""
        for function in unreachable(module):
            raise ConfigurationError.at(
                function,
                f"is not served: the module {module.__name__} has no such name any more; "
                "give every handler a name of its own, at the module's top level, with the tinysvc decorator on top",
            )
        self._take_name(module)
        imported: list[str] = []
        for value in list(vars(module).values()):
            if isinstance(value, Service) and value.is_part_of_module:
                self._add(value)
            for record in recorded(value) if isinstance(value, types.FunctionType) else ():
                if isinstance(record, Resource) or value.__module__ == module.__name__:
                    _check_on_top(value, record)
                    self._add_record(record)
                else:
                    imported.append(value.__name__)
        if not self.routes and not self.inner:
            hint = f"; it imports {', '.join(imported)}: name them in a Service(...)" if imported else ""
            name = f"{module.__name__} ({getattr(module, '__file__', 'no file')})"
            raise ConfigurationError(
                f"the module {name} has no function with @io_route, @cpu_route or @job_route{hint}"
            )

    def _take_name(self, module: types.ModuleType) -> None:
        """Take the name, description and version of the first module, unless the author gave others."""
        if not self.description and not self.routes:
            self.name = self.name or module.__name__.rpartition(".")[2]
            self.description = inspect.cleandoc(module.__doc__ or "")
            if self.version == "0":
                self.version = str(getattr(module, "__version__", "0"))

    def _add_record(self, record: Route | Resource) -> None:
        if isinstance(record, Route):
            alike = self._alike[record.path, record.methods]
            if record not in alike:
                alike.append(record)
                self.routes.append(record)
            return
        known = self.resources.setdefault(record.name, record)
        if known.function is not record.function:
            raise ConfigurationError.at(
                record.function, f"the service has another resource {record.name}; rename one of the two"
            )

    def all_routes(self) -> Iterator[tuple[str, Route]]:
        """Each route of this service and of the services inside it, with its whole path."""
        for mount in self.mounts():
            for route in mount.service.routes:
                yield mount.path_of(route), route

    def mounts(self, outer: Mount | None = None) -> Iterator[Mount]:
        """This service and all services inside it, at their places."""
        if outer is None:
            outer = Mount(self, "", (), {}, "")
        mount = Mount(
            self,
            outer.prefix + self.prefix,
            outer.middleware + self.middleware,
            {**outer.error_handlers, **self.error_handlers},
            outer.name if self.is_part_of_module or not self.name else self.name,
        )
        yield mount
        for inner in self.inner:
            yield from inner.mounts(mount)

    def override(self, **resources: Any) -> Service:
        """Return a copy of this service with other resources: for tests.

        Args:
            **resources: Replacements by name. A function is opened as the resource would be: it may yield, and take
                other resources. Any other value is the resource itself; it must be picklable for a `cpu_resource`.

        Returns:
            The copy, as in `serving(service.override(database=fake))`.

        Raises:
            ConfigurationError: No resource has this name.
        """
        known = {name for each in self.mounts() for name in each.service.resources}
        for name in resources:
            if name not in known:
                raise ConfigurationError(f"override: there is no resource {name!r}{did_you_mean(name, sorted(known))}")
        return self._overridden(resources)

    def _overridden(self, replacements: Mapping[str, Any]) -> Service:
        other = copy.copy(self)
        other.inner = [inner._overridden(replacements) for inner in self.inner]
        other.resources = {
            name: self._replaced(resource, replacements[name]) if name in replacements else resource
            for name, resource in self.resources.items()
        }
        return other

    def _replaced(self, resource: Resource, replacement: Any) -> Resource:
        """The resource with another function or value. If it was per request, it stays so, for cpu handlers."""
        per_request = resource.name in names_per_request(in_order([resource.name], self.resources))
        if recorded(replacement):
            resource = next(record for record in recorded(replacement) if isinstance(record, Resource))
        else:
            function = replacement if isinstance(replacement, types.FunctionType) else Given(replacement)
            resource = dataclasses.replace(resource, function=function, check=None)
        return dataclasses.replace(resource, per_request=per_request)

    def url_for(self, handler: Callable[..., Any], /, **parameters: Any) -> str:
        """Return the path at which this service serves a handler.

        Of several routes of the handler, the one with the most of these path parameters is chosen. The path lacks the
        prefixes of services around this one: `Request.url_for` knows them.

        Args:
            handler: A handler with `@io_route`, `@cpu_route` or `@job_route`.
            **parameters: Path parameters by name; all others become the query, without those that are None. Values are
                written as they are read: an Enum by its value, a datetime as in ISO 8601.

        Returns:
            The path, percent-encoded, with its query.

        Raises:
            ConfigurationError: The service does not serve the handler, or a path parameter is missing.
        """
        return build_url(
            handler, [(path, route) for path, route in self.all_routes() if route.function is handler], parameters
        )


def build_url(handler: Callable[..., Any], routes: Sequence[tuple[str, Route]], parameters: Mapping[str, Any]) -> str:
    """See Service.url_for. `routes` are those of the handler, with their whole paths."""
    if not routes:
        raise ConfigurationError.at(handler, "is served by no route of this service; url_for has no path for it")
    single = {name for name, value in parameters.items() if value is not None and not isinstance(value, (list, tuple))}
    fitting = [(path, route) for path, route in routes if single.issuperset(route.parameters)]
    if not fitting:
        path, route = routes[0]
        missing = ", ".join(name for name in route.parameters if name not in single)
        raise ConfigurationError.at(handler, f"url_for needs the path parameters of {path}: {missing}")
    path, route = max(fitting, key=lambda each: len(each[1].parameters))
    texts = {name: text_of(value) for name, value in parameters.items()}
    rest = {k: text for k, text in texts.items() if k not in route.parameters and parameters[k] is not None}
    query = urlencode(rest, doseq=True)
    filled = filled_path(path, texts)
    return f"{filled}?{query}" if query else filled


def _check_keywords(options: Mapping[str, Any]) -> None:
    """SettingsError for an unknown keyword, such as a mistyped `middleware=`."""
    fields = [field.name for field in dataclasses.fields(Settings)]
    known = [name for name in inspect.signature(Service).parameters if name not in ("parts", "options")]
    for name in options:
        if name not in fields:
            raise SettingsError(f"Service(...) takes no {name!r}{did_you_mean(name, [*known, *fields])}")


def _check_on_top(part: object, record: Route | Resource) -> None:
    """Refuse a decorator above ours: functools.wraps copies our record, so the other decorator would be skipped."""
    if record.function is not part:
        raise ConfigurationError.at(
            record.function,
            "another decorator is above the tinysvc one and would be skipped; put the tinysvc decorator on top",
        )
