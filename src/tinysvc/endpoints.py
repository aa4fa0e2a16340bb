"""The worker's side of a cpu route: request -> bind -> handler -> encode -> response, one at a time.

A worker imports this, and neither the server nor the pool: the less it loads, the sooner it is there and the less
memory each costs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from .binding import Binder, encode_iterator, encode_result
from .errors import HTTPError
from .messages import Headers, Peer, Request, problem_response
from .worker import Handle, Reply


class Endpoint(NamedTuple):
    """A cpu route as a worker needs it: picklable, by the names of its functions."""

    function: Callable[..., Any]
    path_parameters: tuple[str, ...]
    resources: dict[str, Callable[..., Any]]


@contextmanager
def cpu_program(endpoints: list[Endpoint]) -> Iterator[Handle]:
    """What a worker runs: open the resources, then bind, call and encode, one request at a time."""
    with ExitStack() as stack:
        opened: dict[Callable[..., Any], Any] = {}
        table = []
        for endpoint in endpoints:
            for function in endpoint.resources.values():
                if function not in opened:
                    is_generator = inspect.isgeneratorfunction(function)
                    opened[function] = stack.enter_context(contextmanager(function)()) if is_generator else function()
            binder = Binder(endpoint.function, endpoint.path_parameters, endpoint.resources)
            values = {name: opened[function] for name, function in endpoint.resources.items()}
            table.append((endpoint.function, binder.bind, values))

        def handle(meta: Any, body: bytes) -> Reply:
            number, method, path, query, parameters, headers, peer = meta
            function, bind, resources = table[number]
            request = Request(method, path, query, Headers(headers), body, parameters, Peer(*map(_address, peer)))
            try:
                response = encode_result(function(**bind(request, body, resources)))
                content = response.content
                if type(content) is not bytes:
                    content = encode_iterator(response)
            except HTTPError as error:
                response = problem_response(error)
                content = response.content
            return Reply((response.status, response.content_type, response.headers), content)

        yield handle


def _address(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
