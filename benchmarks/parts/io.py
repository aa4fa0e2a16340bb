"""An io route: GET a small JSON object, 64 connections, everything on one core."""

from __future__ import annotations

from harness import (
    ENVIRONMENT,
    LOAD_CORE,
    PYTHON,
    SERVER_CORE,
    Load,
    Options,
    Peer,
    installed,
    rate_table,
    rounds,
    started,
    tinysvc,
    uvicorn,
    where,
)

TITLE = "io: GET a small JSON object"
BASELINE = "asyncio streams, fixed reply"
"""What uvloop and the kernel cost: no server on asyncio streams can be faster."""

CASES = {"get.lua": "Bare request (only `Host`)", "browser.lua": "With a browser's dozen headers"}


def peers() -> list[Peer]:
    commands = {
        "tinysvc": tinysvc("tinysvc_io.py"),
        BASELINE: [PYTHON, "bare_streams.py", "{port}"],
        "raw ASGI on uvicorn": uvicorn("raw_asgi:app"),
        "Starlette on uvicorn": uvicorn("starlette_app:app"),
        "FastAPI on uvicorn": uvicorn("fastapi_app:app"),
    }
    if installed("granian"):
        granian = [str(ENVIRONMENT / "bin" / "granian"), "--port", "{port}", "granian_rsgi:app"]
        options = ["--interface", "rsgi", "--workers", "1", "--loop", "uvloop", "--http", "1", "--no-ws"]
        commands["Granian RSGI, fixed reply"] = [*granian, *options]
    return [Peer(name=name, command=command, pin=SERVER_CORE) for name, command in commands.items()]


def measure(options: Options) -> str:
    text = []
    servers = peers()
    with started(servers):
        for script, title in CASES.items():
            load = Load(script=script, path="/json", connections=64, seconds=options.choose(2, 1), pin=LOAD_CORE)
            results = rounds(servers, load, options.choose(7, 3))
            text += [f"{title}:\n", rate_table(results, {BASELINE: "ratio"}), f"\n`{load}`\n"]
    if len(servers) < 6:
        text.append("Granian is not installed here and was left out.\n")
    return "\n".join([where() + "\n", *text])
