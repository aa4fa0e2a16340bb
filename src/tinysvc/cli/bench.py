"""`--bench`: do io routes stay fast while the cpu routes are saturated? Measured on the author's service and machine.

    this process     serves on a free port of 127.0.0.1
      ├── steady     sends requests to the io routes at a fixed rate, each at its due time
      └── saturate   enough clients to keep all workers busy; each sends its next request after a response

The requests are samples from the OpenAPI document (samples.py), and each is tried once: a route that refuses its sample
or is slow is left out, and reported. A delay counts from the due time of a request: late sending is not hidden.
"""

from __future__ import annotations

import http.client
import itertools
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..core.cores import available_cores
from ..core.errors import ConfigurationError
from ..core.settings import load_settings
from ..openapi.document import document
from ..openapi.samples import SampleRequest, samples
from ..server.loading import TargetError
from ..service.plan import plans_of
from ..service.service import Service
from ..testing import serving

Address = tuple[str, int]

SECONDS = 3.0
"""Length of each of the two measurements of the io routes, at rest and under load."""

RATE = 200
"""Requests per second to all io routes together."""

CLIENTS = 32
"""Clients that send these requests, one at a time each."""

CLIENTS_EACH = 4
"""Clients per CPU that keep the workers busy."""

SLOW = 0.5
"""Seconds; a slower io route would only measure its own waiting."""

LATE = 5.0
"""Seconds after the last due time; requests that are not sent by then have failed."""

PATIENCE = 30.0
"""Seconds to wait for a response."""

NOT_HERE = {"host": "127.0.0.1", "port": 0, "unix": "", "ssl_cert": "", "ssl_key": "", "ssl_ca": "", "workers": 1}
"""Options that the command line and variables cannot change here."""


class Delays(NamedTuple):
    """Seconds from the due time of each request to its response, by route; delays of the client itself; failures."""

    by_route: dict[str, list[float]]
    late: list[float]
    failed: int


def bench(service: Service, options: Mapping[str, Any]) -> str:
    """Measure the service, and return the text to print. ConfigurationError if there is nothing to measure."""
    options = {**options, **NOT_HERE}
    settings = load_settings(options, os.environ, service.options)
    made, left_out = samples(document(service, list(plans_of(service)), settings))
    with serving(service, raise_errors=False, **options) as url:
        address = urlsplit(url).hostname or "", urlsplit(url).port or 0
        io, cpu, refused = _tried(made, address)
        left_out |= refused
        if not io or not cpu:
            missing = (
                "an io_route that responds to a sample GET"
                if not io
                else "a cpu_route that responds to a sample request"
            )
            raise TargetError(f"--bench needs {missing}, and there is none{_reasons(left_out)}")
        clients = CLIENTS_EACH * available_cores()
        rest = _steady(address, io)
        with _saturated(address, cpu, clients) as count:
            begin, before = time.monotonic(), count.value
            load = _steady(address, io)
            rate = (count.value - before) / (time.monotonic() - begin)
    saturated = f"{rate:,.0f} responses per second from {', '.join(each.route for each in cpu)} to {clients} clients"
    return _shown(io, rest, load, saturated, left_out)


# Processes: clients in other interpreters are not delayed by the server or by each other


@contextmanager
def _process(target: Callable[..., None], *arguments: object) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _steady(address: Address, io: Sequence[SampleRequest]) -> Delays:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver, sender, _process(_send_delays, sender, address, io):
        if not receiver.poll(SECONDS + LATE + 2 * PATIENCE):
            raise ConfigurationError(
                f"the io routes did not respond within {SECONDS + LATE + 2 * PATIENCE:g} s; if a handler blocks the "
                "event loop, the log names it"
            )
        delays: Delays = receiver.recv()
        return delays


def _send_delays(sender: Connection, address: Address, io: Sequence[SampleRequest]) -> None:
    sender.send(_measure(address, io))


@contextmanager
def _saturated(address: Address, cpu: Sequence[SampleRequest], clients: int) -> Iterator[Synchronized[int]]:
    """While the block runs, all workers are busy; its value is the number of responses so far."""
    count = multiprocessing.get_context("spawn").Value("q", 0)
    with _process(_saturate, address, cpu, clients, count):
        end = time.monotonic() + PATIENCE
        while not count.value:
            if time.monotonic() > end:
                raise ConfigurationError(
                    f"no cpu route has responded within {PATIENCE:g} s; give one of them a faster example="
                )
            time.sleep(0.01)
        yield count


def _saturate(address: Address, cpu: Sequence[SampleRequest], clients: int, count: Synchronized[int]) -> None:
    server = multiprocessing.parent_process()

    def send_again(number: int) -> None:
        client, first = _Client(address), number % len(cpu)
        for sample in itertools.cycle([*cpu[first:], *cpu[:first]]):
            if client.status(sample) < 400:
                with count.get_lock():
                    count.value += 1
            elif server is None or not server.is_alive():
                return
            else:
                time.sleep(0.01)  # the server is overloaded

    for number in range(clients):
        threading.Thread(target=send_again, args=(number,)).start()


# Requests


class _Client:
    """One keep-alive connection."""

    def __init__(self, address: Address) -> None:
        self.connection = http.client.HTTPConnection(*address, timeout=PATIENCE)

    def status(self, sample: SampleRequest) -> int:
        """The status of the complete response; 599 without a response."""
        try:
            self.connection.request(sample.method, sample.target, sample.body, sample.headers)
            response = self.connection.getresponse()
            end = time.monotonic() + PATIENCE
            while response.read(1 << 16):
                if time.monotonic() > end:
                    raise TimeoutError("a response without end")
            return response.status
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return 599


def _tried(
    made: Sequence[SampleRequest], address: Address
) -> tuple[list[SampleRequest], list[SampleRequest], dict[str, str]]:
    """The samples of io routes and of cpu routes to use, and the reasons for leaving out the others."""
    good: dict[str, list[SampleRequest]] = {"io": [], "cpu": []}
    left_out = {}
    client = _Client(address)
    for sample in made:
        if sample.kind == "io" and sample.method != "GET":
            left_out[sample.route] = "it may change something"
            continue
        begin = time.monotonic()
        status = client.status(sample)
        if status >= 400:
            left_out[sample.route] = f"its sample request got status {status}; give the route an example="
        elif sample.kind == "io" and time.monotonic() - begin > SLOW:
            left_out[sample.route] = f"it takes more than {SLOW:g} s"
        else:
            good[sample.kind].append(sample)
    return good["io"], good["cpu"], left_out


def _measure(address: Address, io: Sequence[SampleRequest]) -> Delays:
    """Send each request at its due time, whatever happened to the earlier ones (an open loop)."""
    by_route: dict[str, list[float]] = {sample.route: [] for sample in io}
    late: list[float] = []
    failed: list[SampleRequest] = []
    numbers = itertools.count()
    begin = time.perf_counter() + 0.1

    def send_in_time() -> None:
        client = _Client(address)
        while (number := next(numbers)) < RATE * SECONDS:
            due, sample = begin + number / RATE, io[number % len(io)]
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
                late.append(time.perf_counter() - due)
            if time.perf_counter() < begin + SECONDS + LATE and client.status(sample) < 400:
                by_route[sample.route].append(time.perf_counter() - due)
            else:
                failed.append(sample)

    threads = [threading.Thread(target=send_in_time) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Delays(by_route, late, len(failed))


# Output


OURSELVES = "(this client was late)"


def _shown(io: Sequence[SampleRequest], rest: Delays, load: Delays, beside: str, left_out: Mapping[str, str]) -> str:
    width = max(len(OURSELVES), *(len(sample.route) for sample in io))
    heads = f"{'':{width}}  {'cpu routes at rest':>23}  {'cpu routes saturated':>23}"
    units = f"{'milliseconds':{width}}" + 2 * f"  {'p50':>7} {'p99':>7} {'most':>7}"
    routes = [sample.route for sample in io]
    rows = [f"{route:{width}}  {_row(rest.by_route[route])}  {_row(load.by_route[route])}" for route in routes]
    client = f"{OURSELVES:{width}}  {_row(rest.late)}  {_row(load.late)}"
    notes = [
        f"io routes: {RATE} requests per second for {SECONDS:g} s; delays count from the due time.",
        f"Saturated: {beside}.",
    ]
    if rest.failed or load.failed:
        notes.append(f"Failed: {rest.failed} requests to io routes at rest, {load.failed} under load.")
    return "\n".join([heads, units, *rows, client, "", *notes]) + _reasons(left_out)


def _row(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return f"{'-':>7} {'-':>7} {'-':>7}"
    percentiles = statistics.quantiles(seconds, n=100)
    return " ".join(
        f"{each * 1e3:7.1f}" for each in (percentiles[49], min(percentiles[98], max(seconds)), max(seconds))
    )


def _reasons(left_out: Mapping[str, str]) -> str:
    if not left_out:
        return ""
    return "\nLeft out:\n" + "\n".join(f"  {route}: {reason}" for route, reason in left_out.items())
