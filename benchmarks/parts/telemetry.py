"""The cost of metrics and traces, beside the usual libraries; scrapes under load; counts that must be exact."""

from __future__ import annotations

from harness import (
    LOAD_CORE,
    PYTHON,
    SERVER_CORE,
    CannotMeasureError,
    Load,
    Measured,
    Options,
    Peer,
    bar,
    median,
    rate_table,
    rates_to,
    request,
    rounds,
    spread,
    started,
    table,
    tinysvc,
    uvicorn,
    where,
    with_environment,
)

from .cpu import awake
from .telemetry_counts import killed_workers, scrapes, unknown_paths

TITLE = "telemetry: metrics and traces, their cost and their truth"
OFF, COUNTED = "tinysvc", "tinysvc, metrics"
STARLETTE, EXPORTER = "Starlette on uvicorn", "Starlette + starlette_exporter"
FASTAPI, INSTRUMENTED = "FastAPI on uvicorn", "FastAPI + prometheus-fastapi-instrumentator"
UNSAMPLED, SAMPLED, ALL = "tinysvc, traces, none sampled", "tinysvc, 1 % sampled", "tinysvc, all sampled"
TRACED, TRACED_ALL = "FastAPI + OpenTelemetry, 1 %", "FastAPI + OpenTelemetry, all"


def measure(options: Options) -> str:
    parts = (metrics, traces, scrapes, unknown_paths, killed_workers)
    return "\n".join(part(options) for part in parts)


def load_of(options: Options) -> Load:
    seconds = options.choose(3, 1)
    return Load(script="get.lua", path="/json", connections=64, seconds=seconds, pin=LOAD_CORE)


def metrics(options: Options) -> str:
    commands = {
        OFF: tinysvc("tinysvc_io.py"),
        COUNTED: tinysvc("tinysvc_io.py", "--metrics", "/metrics"),
        STARLETTE: uvicorn("starlette_app:app"),
        EXPORTER: uvicorn("starlette_exporter_app:app"),
        FASTAPI: uvicorn("fastapi_app:app"),
        INSTRUMENTED: uvicorn("fastapi_instrumented:app"),
    }
    peers = [Peer(name=name, command=command, pin=SERVER_CORE) for name, command in commands.items()]
    load = load_of(options)
    with started(peers):
        results = rounds(peers, load, options.choose(9, 3))
        for peer in peers:
            if peer.name in (COUNTED, EXPORTER, INSTRUMENTED):
                check_counts(peer)
    added = {name: added_cpu(results, name, base) for name, base in PAIRS.items()}
    shares = {name: rates_to(results, name, base) for name, base in PAIRS.items()}
    rows = [[f"{name}, to {base}", *numbers(shares[name]), *numbers(added[name])] for name, base in PAIRS.items()]
    return "\n".join(
        [
            f"Metrics of a bare io route, `{load}`. {where()}\n",
            rate_table(results, {OFF: f"of {OFF}"}),
            "",
            table(["With metrics, to without", "requests/s", "spread", "CPU µs/request more", "spread"], rows),
            "",
            bar("requests a second with metrics, to those without", shares[COUNTED], least=0.95),
            bar("CPU µs that metrics add to a request", added[COUNTED], most=1),
            "",
        ]
    )


PAIRS = {COUNTED: OFF, EXPORTER: STARLETTE, INSTRUMENTED: FASTAPI}


def added_cpu(results: dict[str, list[Measured]], name: str, base: str) -> list[float]:
    """Microseconds of CPU time that a request takes more than without, round by round."""
    return [(on.cpu - off.cpu) * 1e6 for on, off in zip(results[name], results[base], strict=True)]


def numbers(values: list[float]) -> list[str]:
    return [median(values, "{:.2f}"), spread(values, "{:.2f}")]


def check_counts(peer: Peer) -> None:
    """CannotMeasureError unless the peer counts and exposes its requests."""
    with awake(peer):
        status, text = request(peer.port, "GET", "/metrics")
    if status != 200 or b"request" not in text or b"_bucket" not in text or b"/json" not in text:
        raise CannotMeasureError(f"{peer.name} does not count: {status} {text[:300]!r}")


def traces(options: Options) -> str:
    collector = Peer(name="the collector", command=[PYTHON, "bare_echo.py", "{port}"], pin=LOAD_CORE)
    with started([collector]):
        collector.thaw()
        url = f"http://127.0.0.1:{collector.port}"

        def mine(sample: float) -> list[str]:
            return tinysvc("tinysvc_io.py", "--traces", url, "--trace-sample", str(sample))

        def theirs(sample: float) -> list[str]:
            app = with_environment("COLLECTOR", f"{url}/v1/traces", uvicorn("fastapi_traced:app"))
            return with_environment("SAMPLE", sample, app)

        commands = {
            OFF: tinysvc("tinysvc_io.py"),
            UNSAMPLED: mine(0),
            SAMPLED: mine(0.01),
            ALL: mine(1),
            FASTAPI: uvicorn("fastapi_app:app"),
            TRACED: theirs(0.01),
            TRACED_ALL: theirs(1),
        }
        peers = [Peer(name=name, command=command, pin=SERVER_CORE) for name, command in commands.items()]
        load = load_of(options)
        with started(peers):
            results = rounds(peers, load, options.choose(9, 3))
    shown = rate_table(results, {OFF: f"of {OFF}", FASTAPI: f"of {FASTAPI}"})
    return "\n".join(
        [
            f"Traces, `{load}`; the load generator sends no trace context, the collector accepts all. {where()}\n",
            shown,
            "",
            bar(
                "requests a second with 1 % of the traces, to those without", rates_to(results, SAMPLED, OFF), least=0.9
            ),
            "",
        ]
    )
