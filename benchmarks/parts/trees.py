"""Two trees of tinysvc: an earlier commit beside this checkout, in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import (
    ENVIRON,
    LOAD_CORE,
    PYTHON,
    ROOT,
    SERVER_CORE,
    CannotMeasureError,
    Load,
    Measured,
    Options,
    Peer,
    bar,
    median,
    put_under_load,
    ratios,
    say,
    spread,
    started,
    table,
    tinysvc,
    warm_up,
    where,
    with_environment,
)

from .cpu import awake

TITLE = "trees: an earlier commit beside this checkout"

LEAST = 0.97
"""The ratio of requests per second, after to before, below which a change has made a route slower."""

COLUMNS = [
    *("", "before, requests/s", "after, requests/s", "after / before", "spread"),
    *("before, CPU µs/request", "after, CPU µs/request", "before / after", "spread"),
]


@dataclasses.dataclass
class Case:
    """One kind of request, and its numbers round by round."""

    name: str
    script: str
    path: str
    connections: int
    before: list[Measured] = dataclasses.field(default_factory=list)
    after: list[Measured] = dataclasses.field(default_factory=list)

    def load(self, seconds: int) -> Load:
        return Load(script=self.script, path=self.path, connections=self.connections, seconds=seconds, pin=LOAD_CORE)


def cases() -> list[Case]:
    return [
        Case("bare", "get.lua", "/json", 16),
        Case("browser headers", "browser.lua", "/json", 16),
        Case("path and query", "get.lua", "/items/7?limit=10&q=tea", 16),
        Case("typed POST", "order.lua", "/orders", 16),
        Case("64 KiB", "get.lua", "/blob", 16),
        Case("pipelined", "pipelined.lua", "/json", 16),
        Case("cpu no-op, 1 connection", "get.lua", "/noop", 1),
        Case("cpu no-op, 16 connections", "get.lua", "/noop", 16),
        Case("cpu echo of 16 MiB", "big.lua", "/echo", 2),
    ]


def measure(options: Options) -> str:
    if not options.before:
        raise CannotMeasureError("--before COMMIT is missing: the tree that this checkout is compared with")
    seconds, count = options.choose(2, 1), options.choose(9, 3)
    measured = cases()
    with tree_of(options.before) as earlier:
        before, after = peer("before", earlier), peer("after", ROOT)
        with started([before, after]):
            for case in measured:
                for number in range(count + 1):
                    one_round(case, [before, after] if number % 2 else [after, before], seconds, counts=number > 0)
                say(f"  {case.name}: {median(rate_ratios(case), '{:.3f}')} ({spread(rate_ratios(case), '{:.3f}')})")
        name = git("rev-parse", "--short", options.before)
    return shown(measured, name, seconds, count)


def one_round(case: Case, peers: Sequence[Peer], seconds: int, *, counts: bool) -> None:
    """Put the same load on both trees; the first round only warms up."""
    for each in peers:
        with awake(each):
            if counts:
                getattr(case, each.name).append(put_under_load(each, case.load(seconds)))
            else:
                warm_up(each, case.load(1))


@contextlib.contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Check a commit out in a folder of its own, for the block."""
    with tempfile.TemporaryDirectory(prefix="bench-tree-") as folder:
        place = Path(folder) / "tree"
        try:
            git("worktree", "add", "--quiet", "--detach", str(place), commit)
        except subprocess.CalledProcessError as error:
            raise CannotMeasureError(f"git cannot check out {commit}: {error.stderr.strip()}") from None
        try:
            yield place
        finally:
            git("worktree", "remove", "--force", str(place))


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def peer(name: str, tree: Path) -> Peer:
    """A server of this tree. CannotMeasureError if Python would import another one."""
    source = tree / "src"
    command = [PYTHON, "-c", "import tinysvc; print(tinysvc.__file__)"]
    found = subprocess.run(
        command, env={**ENVIRON, "PYTHONPATH": str(source)}, cwd=tree, capture_output=True, text=True, check=False
    )
    if not found.stdout.startswith(str(source)):
        raise CannotMeasureError(f"{PYTHON} imports {found.stdout.strip() or found.stderr.strip()}, not {source}")
    serve = with_environment("PYTHONPATH", source, tinysvc("tinysvc_trees.py", "--cpu-workers", "1"))
    return Peer(name=name, command=serve, pin=SERVER_CORE)


def rate_ratios(case: Case) -> list[float]:
    return ratios([each.rate for each in case.after], [each.rate for each in case.before])


def cpu_ratios(case: Case) -> list[float]:
    return ratios([each.cpu for each in case.before], [each.cpu for each in case.after])


def shown(measured: Sequence[Case], before: str, seconds: int, count: int) -> str:
    bars = [bar(f"{case.name}, after to before", rate_ratios(case), least=LEAST) for case in measured]
    commands = "\n".join(f"- {case.name}: `{case.load(seconds)}`" for case in measured)
    return (
        f"Before is commit {before}, after is this checkout; {count} rounds of {seconds} s, the trees in alternating "
        f"order. {where()} The worker shares the server's core, and its CPU time counts. A ratio compares two numbers "
        f"of the same round; above 1, this checkout is faster.\n\n{table(COLUMNS, map(row, measured))}\n\n"
        + "\n".join(bars)
        + f"\n\n{commands}\n"
    )


def row(case: Case) -> list[str]:
    rates, cpu = rate_ratios(case), cpu_ratios(case)
    before, after = ([each.rate for each in side] for side in (case.before, case.after))
    cpu_before, cpu_after = ([each.cpu * 1e6 for each in side] for side in (case.before, case.after))
    return [
        *(case.name, median(before), median(after), median(rates, "{:.3f}"), spread(rates, "{:.3f}")),
        *(median(cpu_before, "{:,.1f}"), median(cpu_after, "{:,.1f}"), median(cpu, "{:.3f}"), spread(cpu, "{:.3f}")),
    ]
