"""Batching: a model of three matrix products, called one by one and with batches of 32."""

from __future__ import annotations

import base64
import struct

from harness import (
    PYTHON,
    Load,
    Options,
    Peer,
    bar,
    bentoml,
    installed,
    mosec,
    rate_table,
    rates_to,
    rounds_of,
    started,
    tinysvc,
)

TITLE = "batch: a model, one by one and 32 at a time"

VECTOR = struct.pack("<f", 1.0) * 1024
IN_JSON = b'{"values":"%b"}' % base64.b64encode(VECTOR)
IN_LIST = b'{"values":["%b"]}' % base64.b64encode(VECTOR)
FOUND = 550
"""The result of the model: a peer with another result is not compared."""

ROUTES = {"one by one": "/classify", "batches": "/classify-batched"}

FULL = "Both cores are full, so what a server uses is missing from the model; mosec's is in Rust, tinysvc's in Python."


def peers() -> list[tuple[Peer, str]]:
    """The peers, each with the script of its load."""
    command = tinysvc("tinysvc_model.py", "--cpu-workers", "2")
    found = [(asked_for_vector("tinysvc", command, VECTOR), "vector.lua")]
    if installed("mosec"):
        found.append((asked_for_vector("mosec", mosec("mosec_model.py"), VECTOR), "vector.lua"))
    if installed("litserve"):
        command = [PYTHON, "litserve_model.py", "{port}"]
        found.append((asked_for_vector("LitServe", command, IN_JSON), "vector-json.lua"))
    if installed("bentoml"):
        command = bentoml("bentoml_model:Model")
        found.append((asked_for_vector("BentoML", command, IN_LIST, answer=[FOUND]), "vector-list.lua"))
    return found


def asked_for_vector(name: str, command: list[str], body: bytes, answer: object = FOUND) -> Peer:
    return Peer(name=name, command=command, probe=("POST", ROUTES["batches"], body), answer=answer)


def measure(options: Options) -> str:
    asked = peers()
    seconds = options.choose(3, 1)
    cases = {
        f"{peer.name}, {how}": (peer, Load(script=script, path=path, connections=64, seconds=seconds))
        for how, path in ROUTES.items()
        for peer, script in asked
    }
    with started([peer for peer, _ in asked]):
        results = rounds_of(cases, options.choose(7, 3))
    baselines = {f"{asked[0][0].name}, {how}": f"ratio to tinysvc, {how}" for how in ROUTES}
    load = cases["tinysvc, batches"][1]
    bars = [
        bar(f"{how}, tinysvc to mosec", rates_to(results, f"tinysvc, {how}", f"mosec, {how}"), least=1, why=FULL) + "\n"
        for how in ROUTES
        if f"mosec, {how}" in results
    ]
    missing = [name for name in ("mosec", "LitServe", "BentoML") if not installed(name)]
    note = f"\nNot installed here and left out: {', '.join(missing)}.\n" if missing else ""
    return (
        "Three matrices of 1024 x 1024 in numpy, one thread; 4 KiB in, a number out; 2 workers, 64 connections; "
        f"batches of at most 32, waiting at most 5 ms:\n\n{rate_table(results, baselines)}\n\n`{load}`\n\n"
        f"{''.join(bars)}{note}"
    )
