"""Io routes: small JSON, parameters, a larger body, pipelined; 64 connections, everything on one core."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence

from harness import (
    LOAD_CORE,
    PYTHON,
    SERVER_CORE,
    CannotMeasureError,
    Load,
    Options,
    Peer,
    bar,
    granian,
    installed,
    rate_table,
    rates_to,
    request,
    rounds,
    served_files,
    started,
    tinysvc,
    uvicorn,
    where,
)

from .cpu import awake

TITLE = "io: routes that compute nothing"
BASELINE = "asyncio streams, fixed reply"
"""The cost of uvloop and the kernel: no server on asyncio streams can be faster."""

BIG = "asyncio streams, 64 KiB"
NGINX = "nginx"
LIMITS = (BASELINE, BIG, NGINX)
OPTIONAL = ("nginx", "Granian", "aiohttp", "Sanic", "Robyn")
FLAGS = {"Robyn": ["--processes", "1", "--workers", "1", "--log-level", "WARN"]}


@dataclasses.dataclass(frozen=True)
class Case:
    """A request, the response of every peer, and the limits: peers with a fixed response."""

    title: str
    script: str
    path: str
    answer: bytes
    limits: Sequence[str] = (BASELINE, NGINX)
    baseline: str = BASELINE
    bars: Sequence[tuple[str, float, str]] = ()
    """A peer, the ratio that tinysvc should reach, and the difficulty."""


MESSAGE = b'{"message":"hello","answer":42}'
PARAMETERS = "/items/4711?limit=25&q=green%20tea"
FOUND = b'{"item":4711,"limit":25,"q":"green tea"}'

GRANIAN = "Granian, RSGI"
BARE_BARS = [
    (BASELINE, 0.70, ""),
    (GRANIAN, 1.4, "Its server is written in Rust; the bare streams are the ceiling for anything on asyncio."),
    ("Starlette on uvicorn", 2.2, ""),
]

CASES = [
    Case("Bare request (only `Host`)", "get.lua", "/json", MESSAGE, bars=BARE_BARS),
    Case("With a browser's dozen headers", "browser.lua", "/json", MESSAGE, bars=[("raw ASGI on uvicorn", 1.4, "")]),
    Case("A parameter in the path and two in the query", "get.lua", PARAMETERS, FOUND, [], "raw ASGI on uvicorn"),
    Case("64 KiB of bytes", "get.lua", "/blob", b"x" * 65536, [BIG, NGINX], BIG),
    Case("Sixteen bare requests in one piece", "pipelined.lua", "/json", MESSAGE),
]


def peers() -> list[Peer]:
    commands = {
        "tinysvc": tinysvc("tinysvc_io.py"),
        BASELINE: [PYTHON, "bare_streams.py", "{port}"],
        BIG: [PYTHON, "bare_streams.py", "{port}", "65536"],
        "raw ASGI on uvicorn": uvicorn("raw_asgi:app"),
        "Starlette on uvicorn": uvicorn("starlette_app:app"),
        "FastAPI on uvicorn": uvicorn("fastapi_app:app"),
        "Litestar on uvicorn": uvicorn("litestar_io:app"),
        "BlackSheep on uvicorn": uvicorn("blacksheep_io:app"),
    }
    if shutil.which("nginx"):
        commands[NGINX] = [PYTHON, "nginx_files.py", "{port}"]
    if installed("granian"):
        commands[GRANIAN] = granian("granian_rsgi:app", "--http1-pipeline-flush")
    for name in OPTIONAL[2:]:
        if installed(name):
            commands[name] = [PYTHON, f"{name.lower()}_io.py", "{port}", *FLAGS.get(name, ())]
    answers = {BIG: "x" * 65534}  # a JSON string of 64 KiB
    return [
        Peer(name=name, command=command, pin=SERVER_CORE, answer=answers.get(name, json.loads(MESSAGE)))
        for name, command in commands.items()
    ]


QUICK = {"tinysvc", *(name for name, *_ in BARE_BARS)}


def measure(options: Options) -> str:
    text = [where() + "\n"]
    servers = [peer for peer in peers() if not options.quick or peer.name in QUICK]
    cases = CASES[:1] if options.quick else CASES
    with served_files({"blob": b"x" * 65536}), started(servers):
        for case in cases:
            asked = [peer for peer in servers if peer.name in case.limits or peer.name not in LIMITS]
            check(case, asked)
            load = Load(script=case.script, path=case.path, connections=64, seconds=options.choose(2, 1), pin=LOAD_CORE)
            results = rounds(asked, load, options.choose(7, 3))
            text += [f"{case.title}:\n", rate_table(results, {case.baseline: "ratio"}), f"\n`{load}`\n"]
            for name, least, why in case.bars:
                if name in results:
                    of_it = rates_to(results, "tinysvc", name)
                    text.append(bar(f"{case.title.lower()}, tinysvc to {name}", of_it, least=least, why=why))
            text.append("")
    missing = [name for name in OPTIONAL if not any(name in peer.name for peer in servers)]
    if missing and not options.quick:
        text.append(f"Not installed here and left out: {', '.join(missing)}.\n")
    return "\n".join(text)


def check(case: Case, asked: Sequence[Peer]) -> None:
    """CannotMeasureError unless all peers do the same work."""
    for peer in asked:
        if peer.name not in LIMITS:
            with awake(peer):
                status, answer = request(peer.port, "GET", case.path)
            if status != 200 or answer != case.answer:
                raise CannotMeasureError(f"{peer.name}: {case.path} was answered by {status} {answer[:200]!r}")
