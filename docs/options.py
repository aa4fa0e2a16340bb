"""Write docs/options.md from Settings: `python docs/options.py`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tinysvc.core.settings import Settings
from tinysvc.core.units import KiB, MiB

HEAD = """\
# Options and limits

The table lists every option of a server. An option is a flag (`--cpu-workers`), a variable (`TINYSVC_CPU_WORKERS`), and
an argument of `tinysvc.run(...)` and of `Service(...)`. The command line and `run` override the variable, and the
variable overrides `Service`. An unknown or wrong option prints one sentence and ends the start with exit status 2.
Times are in seconds and sizes in bytes, as plain numbers: `--max-body-size 1048576`.

`pools` configures the pools that routes name, as in `cpu_route("/fit", pool="training")`. In `Service(...)` and
`run(...)` it is a mapping, `pools={"training": Pool(workers=1, queue_size=2)}`, or the same text as the flag. A field
that is left out (`workers`, `queue_size`, `max_jobs`, `max_memory`, `memory_limit`) has the value of the default pool.
Each field is looked up separately: `--pools training:workers=4` changes only that field.

`services` names the replicas of other services. In `Service(...)` and `run(...)` it may be a
mapping, `services={"shop": ["http://a:8001", "http://b:8001"]}`.

This page is written by `python docs/options.py`.

| option | default | meaning |
|---|---|---|
"""
COMPUTED = {
    "cpu_workers": "the cores that the process may use",
    "max_connections": "10,000, or 0.8 of the descriptor limit if that is less",
}

_SIZES = ("_size", "_line", "_field", "_memory", "_pipelined")
_UNITS = [(1024 * MiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")]


def page() -> str:
    rows = []
    for field in dataclasses.fields(Settings):
        default = COMPUTED.get(field.name) or shown(field.name, field.default)
        rows.append(f"| `{field.name}` | {default} | {field.metadata['help']} |\n")
    return HEAD + "".join(rows)


def shown(name: str, value: object) -> str:
    """A default with its unit."""
    if isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, int) and value >= KiB and name.endswith(_SIZES):
        unit, word = next((unit, word) for unit, word in _UNITS if value >= unit)
        return f"{value // unit} {word}"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return str(value) or "none"


if __name__ == "__main__":
    (Path(__file__).parent / "options.md").write_text(page())
