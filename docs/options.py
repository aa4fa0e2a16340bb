"""Write docs/options.md from Settings: `python docs/options.py`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tinysvc.core.settings import KiB, MiB, Settings

HEAD = """\
# Options and limits

Every option of a server, in one table: it is a flag (`--cpu-workers`), a variable (`TINYSVC_CPU_WORKERS`), an argument
of `tinysvc.run(...)` and of `Service(...)`. Where several are given, the command line or `run` is stronger than the
variable, and the variable stronger than `Service`. A wrong or unknown one ends the start with a sentence and exit
status 2. Times are given in seconds, sizes in bytes, as plain numbers: `--max-body-size 1048576`.

`pools` configures the pools that routes name, as in `cpu_route("/fit", pool="training")`. In `Service(...)` and
`run(...)` it is a mapping, `pools={"training": Pool(workers=1, queue_size=2)}`, or the text that the flag takes. A
field that is left out (`workers`, `queue_size`, `max_jobs`, `max_memory`, `memory_limit`) is as for the default pool,
and each field is looked for by itself: `--pools training:workers=4` changes only that one.

This page is written by `python docs/options.py`.

| option | default | what it is |
|---|---|---|
"""
COMPUTED = {
    "cpu_workers": "the cores it may use",
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
    """A default as a reader wants it: with its unit."""
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
