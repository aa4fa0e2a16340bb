"""A typed POST: about 1 KiB of JSON, validated against a type with a nested list; the response is of another type."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from typing import Any

from harness import (
    HERE,
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
    rates_to,
    ratios,
    request,
    rounds,
    spread,
    started,
    table,
    tinysvc,
    uvicorn,
    where,
)

from .cpu import awake

TITLE = "typed: POST a validated JSON document"
DATACLASSES, STRUCTS = "tinysvc, dataclasses", "tinysvc, msgspec Structs"
LIMIT = "asyncio streams, fixed reply"

BARS = {
    "FastAPI on uvicorn, pydantic": 5,
    "Litestar on uvicorn, msgspec Structs": 2,
    "Litestar on uvicorn, dataclasses": 2,
    "BlackSheep on uvicorn, pydantic": 2,
}
"""Peer -> the ratio of requests per second that tinysvc should reach."""

COLUMNS = [
    *("", "requests/s", "spread", "tinysvc, dataclasses / it", "spread"),
    *("tinysvc, Structs / it", "server CPU µs/request", "wrk, % of a core"),
]

SCRIPT, PATH = "order.lua", "/orders"
SPOILT = 3
"""The line of the invalid order whose quantity is no number."""

NAMED = rf"lines\W+{SPOILT}\W+quantity"
"""The place of the error in a refusal: `$.lines[3].quantity` or `["lines",3,"quantity"]`."""


def order() -> dict[str, Any]:
    """The order that wrk sends."""
    found = re.search(r"\[\[(.*)\]\]", (HERE / "wrk" / SCRIPT).read_text())
    assert found, f"{SCRIPT} has no body between [[ and ]]"
    sent: dict[str, Any] = json.loads(found[1])
    return sent


def receipt() -> dict[str, Any]:
    """The expected receipt. All prices are multiples of 0.25, which floats represent exactly."""
    asked = order()
    charges = [
        {"sku": line["sku"], "quantity": line["quantity"], "amount": line["quantity"] * line["price"]}
        for line in asked["lines"]
    ]
    total = sum(charge["amount"] for charge in charges) * (1 - asked["discount"])
    return {"number": asked["number"], "customer": asked["customer"], "total": total, "charges": charges}


def spoilt() -> dict[str, Any]:
    """The order with a wrong type in its nested list."""
    asked = order()
    asked["lines"][SPOILT]["quantity"] = "many"
    return asked


def encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def peers() -> list[Peer]:
    """The peers that validate, then the limit."""
    commands = {
        DATACLASSES: tinysvc("tinysvc_typed.py"),
        STRUCTS: tinysvc("tinysvc_struct.py"),
        "FastAPI on uvicorn, pydantic": uvicorn("fastapi_typed:app"),
        "Litestar on uvicorn, msgspec Structs": uvicorn("litestar_struct:app"),
        "Litestar on uvicorn, dataclasses": uvicorn("litestar_typed:app"),
        "BlackSheep on uvicorn, pydantic": uvicorn("blacksheep_typed:app"),
    }
    probe, size = ("POST", PATH, encoded(order())), len(encoded(receipt()))
    found = [
        Peer(name=name, command=command, pin=SERVER_CORE, probe=probe, answer=receipt())
        for name, command in commands.items()
    ]
    bare, fixed = [PYTHON, "bare_streams.py", "{port}", str(size)], "x" * (size - 2)  # a string of `size` bytes
    return [*found, Peer(name=LIMIT, command=bare, pin=SERVER_CORE, probe=probe, answer=fixed)]


def measure(options: Options) -> str:
    servers = peers()
    load = Load(script=SCRIPT, path=PATH, connections=64, seconds=options.choose(3, 1), pin=LOAD_CORE)
    with started(servers):
        for peer in servers[:-1]:
            with awake(peer):
                check(peer.name, peer.port)
        results = rounds(servers, load, options.choose(9, 5))
    sizes = f"{len(encoded(order())):,} bytes of JSON in, {len(encoded(receipt()))} out"
    of_it = {name: rates_to(results, DATACLASSES, name) for name in BARS}
    bars = [bar(f"typed, tinysvc to {name}", of_it[name], least=least) for name, least in BARS.items()]
    return "\n".join([f"{where()} {sizes}, 64 connections:\n", shown(results), f"\n`{load}`\n", *bars, ""])


def check(name: str, port: int) -> None:
    """CannotMeasureError unless the order gets its receipt, and the invalid order a 4xx that names the place.

    A peer that does not validate does less work, and is not compared.
    """
    status, answer = request(port, "POST", PATH, encoded(order()))
    if status != 200 or json.loads(answer) != receipt():
        raise CannotMeasureError(f"{name}: 200 with the receipt was expected for an order, not {status} {answer!r}")
    status, answer = request(port, "POST", PATH, encoded(spoilt()))
    if not 400 <= status < 500 or not re.search(NAMED, answer.decode()):
        expected = f"4xx that names lines, {SPOILT} and quantity"
        raise CannotMeasureError(
            f"{name}: a {expected} was expected for a wrong type there, not {status} {answer!r}; "
            "a peer that does not validate is not comparable"
        )


def shown(results: dict[str, list[Measured]]) -> str:
    """The table, fastest first, with the ratios of tinysvc."""
    rates = {name: [each.rate for each in measured] for name, measured in results.items()}
    rows = [
        [name, median(rates[name]), spread(rates[name]), *compared(name, rates), *cpu_cells(results[name])]
        for name in sorted(results, key=lambda name: -statistics.median(rates[name]))
    ]
    return table(COLUMNS, rows)


def compared(name: str, rates: dict[str, list[float]]) -> list[str]:
    of_it = ratios(rates[DATACLASSES], rates[name])
    with_structs = ratios(rates[STRUCTS], rates[name])
    return [median(of_it, "{:.2f}"), spread(of_it, "{:.2f}"), median(with_structs, "{:.2f}")]


def cpu_cells(measured: Sequence[Measured]) -> list[str]:
    return [median([each.cpu * 1e6 for each in measured]), median([each.load * 100 for each in measured])]
