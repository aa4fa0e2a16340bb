"""The parts share this: peers, load, rounds, numbers, tables. Standard library only.

A *peer* is one server under test: a command in its own process group. A *round* puts load on each peer in turn, while
the others are stopped (SIGSTOP). A ratio always compares two numbers of the same round: other work of the machine, for
seconds or minutes, slows all peers alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVIRONMENT = Path(os.environ.get("BENCH_ENVIRONMENT") or ROOT / ".venv-bench")
"""The environment of tinysvc and its peers; a test sets its own."""

PYTHON = str(ENVIRONMENT / "bin" / "python")
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TINYSVC_"))}
"""The environment variables of peers: with PYTHONDONTWRITEBYTECODE, tinysvc would compile at every start."""

TICK = 1 / os.sysconf("SC_CLK_TCK")

SETTLE = 0.2
"""Seconds in which a peer finishes its last requests before it is stopped or measured."""

ANSWER = {"message": "hello", "answer": 42}
"""The response of every peer to GET /json."""

CORES = sorted(os.sched_getaffinity(0))
PINNED = len(CORES) >= 2 and shutil.which("taskset") is not None
SERVER_CORE = ["taskset", "-c", str(CORES[0])] if PINNED else []
LOAD_CORE = ["taskset", "-c", str(CORES[1])] if PINNED else []


MISSED = "Missed:"


class CannotMeasureError(Exception):
    """The measurement would be wrong, and is not written down."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The length of a run, the folder of its results, and what it compares."""

    quick: bool
    output: Path
    before: str = ""
    """The commit of the earlier tree, for the part `trees`."""

    def choose(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def say(text: str) -> None:
    print(text, flush=True)


# Processes


@dataclasses.dataclass(frozen=True)
class Process:
    """A process, identified by pid and start time: the system may reuse a pid."""

    pid: int
    parent: int
    started: int
    cpu: float  # seconds, user + system, with ended children

    def is_alive(self) -> bool:
        now = read_process(self.pid)
        return now is not None and now.started == self.started


def read_process(pid: int) -> Process | None:
    """Read /proc/PID/stat; None if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, *rest = text.rpartition(")")[2].split()  # the name may hold spaces
    if state == "Z":
        return None
    return Process(pid, int(parent), int(rest[17]), sum(map(int, rest[9:13])) * TICK)


def tree(root: int) -> list[Process]:
    """The process and its descendants, parents first."""
    processes = [read_process(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()]
    children: dict[int, list[Process]] = {}
    for process in processes:
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    top = read_process(root)
    found = [top] if top is not None else []
    for process in found:
        found.extend(children.get(process.pid, ()))
    return found


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


# Peers


@dataclasses.dataclass(kw_only=True)
class Peer:
    """One server. Its response to `probe` must be `answer`.

    In `command`, {port} stands for its port, and {folder} for a folder of its own, which it may fill.
    """

    name: str
    command: Sequence[str]
    pin: Sequence[str] = ()
    probe: tuple[str, str, bytes] = ("GET", "/json", b"")
    answer: object = dataclasses.field(default_factory=ANSWER.copy)
    port: int = 0
    process: subprocess.Popen[bytes] = dataclasses.field(init=False)

    def start(self, port: int = 0) -> None:
        self.port = port or free_port()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.folder = tempfile.TemporaryDirectory(prefix="bench-")  # for the temporary files of a killed peer
        command = [*self.pin, *(word.format(port=self.port, folder=self.folder.name) for word in self.command)]
        self.process = subprocess.Popen(
            command,
            cwd=HERE / "peers",
            env={**ENVIRON, "TMPDIR": self.folder.name},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        try:
            self._await_answer(command)
        except BaseException:  # also Ctrl-C: no caller knows the process yet
            self.stop()
            raise

    def _await_answer(self, command: Sequence[str]) -> None:
        deadline = time.monotonic() + 30
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise CannotMeasureError(f"{self.name} did not start: {' '.join(command)}\n{self._said()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            status, body = request(self.port, *self.probe)
            return status == 200 and json.loads(body) == self.answer
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def _said(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-3000:]

    def freeze(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the process group and all descendants, in other groups too; wait until all have ended."""
        family = tree(self.process.pid)
        for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGCONT)
                os.killpg(self.process.pid, number)
            if number == signal.SIGKILL:
                _kill_each(family)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
            if self.process.returncode is not None and wait_until(lambda: not _alive(family), 1.0):
                break
        self.log.close()
        self.folder.cleanup()

    def cpu(self) -> float:
        """Seconds of CPU time of all its processes so far."""
        return sum(process.cpu for process in tree(self.process.pid))


def _alive(family: Iterable[Process]) -> list[Process]:
    return [process for process in family if process.is_alive()]


def _kill_each(family: Iterable[Process]) -> None:
    for process in _alive(family):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def started(peers: Sequence[Peer]) -> Iterator[None]:
    """Start the peers and stop them with SIGSTOP; end all of them in any case."""
    with contextlib.ExitStack() as stack:
        for peer in peers:
            say(f"  starting {peer.name}")
            peer.start()
            stack.callback(peer.stop)
            peer.freeze()
        yield


@contextlib.contextmanager
def served_files(contents: dict[str, bytes]) -> Iterator[None]:
    """Make a folder with these files for the block; peers find it in $BENCH_FOLDER."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, content in contents.items():
            (Path(folder) / name).write_bytes(content)
        ENVIRON["BENCH_FOLDER"] = folder
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def request(port: int, method: str, path: str, body: bytes = b"", timeout: float = 5.0) -> tuple[int, bytes]:
    """Send one request on a new connection; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body or None, {"content-type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def uvicorn(app: str) -> list[str]:
    """The options that its documentation gives for speed: uvloop, httptools, no access log.

    And it does not look for a proxy's headers, which it would by default; tinysvc looks for none either.
    """
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    options += ["--no-proxy-headers"]
    return [PYTHON, "-m", "uvicorn", app, "--port", "{port}", *options]


def tinysvc(file: str, *options: str) -> list[str]:
    return [PYTHON, "-m", "tinysvc", file, "--port", "{port}", *options]


def granian(app: str, *options: str) -> list[str]:
    """RSGI, the protocol that its documentation calls the fastest; one worker."""
    command = [str(ENVIRONMENT / "bin" / "granian"), "--port", "{port}", "--interface", "rsgi", "--workers", "1"]
    return [*command, "--loop", "uvloop", "--http", "1", "--no-ws", *options, app]


def with_environment(name: str, value: object, command: Sequence[str]) -> list[str]:
    return ["env", f"{name}={value}", *command]


def installed(package: str) -> bool:
    """Whether an optional peer (requirements-optional.txt) is installed."""
    return any(ENVIRONMENT.glob(f"lib/python*/site-packages/{package.lower()}"))


def own_environment(peer: str) -> Path | None:
    """An environment for a peer that cannot share one with the others, made once from requirements-PEER.txt.

    None where it cannot be made: the peer is left out.
    """
    folder, requirements = ROOT / f".venv-bench-{peer}", HERE / f"requirements-{peer}.txt"
    stamp, wanted = folder / ".ready", f"{sys.base_prefix} {sys.version_info[:3]}\n{requirements.read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    say(f"  setting up {folder.name} (once)")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    except (OSError, subprocess.CalledProcessError):
        say(f"  going on without {peer}: pip could not install it")
        return None
    stamp.write_text(wanted)
    return folder


def bentoml(app: str) -> list[str]:
    serve = [str(ENVIRONMENT / "bin" / "bentoml"), "serve", app, "--host", "127.0.0.1", "--port", "{port}"]
    return with_environment("BENTOML_DO_NOT_TRACK", True, with_environment("BENTOML_HOME", "{folder}", serve))


def mosec(file: str, *options: str) -> list[str]:
    return [PYTHON, file, "--address", "127.0.0.1", "--port", "{port}", "--log-level", "error", *options]


# Load


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """A closed loop of wrk: each connection sends its next request after each response."""

    script: str
    path: str
    connections: int
    seconds: int
    pin: Sequence[str] = ()

    def command(self, port: int | str) -> list[str]:
        return [
            *(*self.pin, "wrk", "-t1", f"-c{self.connections}", f"-d{self.seconds}s", "--timeout", "10s"),
            *("-s", str(HERE / "wrk" / self.script), f"http://127.0.0.1:{port}{self.path}"),
        ]

    @property
    def settle(self) -> float:
        """Seconds for the last requests and for closing all connections."""
        return SETTLE * (1 + self.connections / 1_000)

    def __str__(self) -> str:
        return " ".join(self.command("PORT")).replace(f"{ROOT}/", "")


@dataclasses.dataclass(frozen=True)
class Measured:
    """The numbers of one peer in one round."""

    rate: float  # requests per second
    cpu: float  # seconds of the server's CPU time per request
    load: float = 0.0  # cores of the load generator; at 1 it is the bottleneck


def parse_wrk(output: str) -> tuple[int, float]:
    """Return requests and seconds. CannotMeasureError if wrk saw errors: refusals are fast, and no result."""
    errors = re.findall(r"^ *(?:Non-2xx or 3xx responses|Socket errors): .*$", output, re.MULTILINE)
    if errors:
        raise CannotMeasureError(f"wrk saw errors: {'; '.join(error.strip() for error in errors)}")
    found = re.search(r"([0-9]+) requests in ([0-9.]+)(ms|s|m)\b", output)
    if found is None or not int(found[1]):
        raise CannotMeasureError(f"wrk did not say how many requests it made:\n{output}")
    return int(found[1]), float(found[2]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[found[3]]


def put_under_load(peer: Peer, load: Load) -> Measured:
    before, ours = peer.cpu(), children_cpu()
    output = subprocess.run(load.command(peer.port), capture_output=True, text=True, check=False)
    used = children_cpu() - ours
    if output.returncode:
        raise CannotMeasureError(f"wrk failed: {output.stderr}")
    try:
        count, seconds = parse_wrk(output.stdout)
    except CannotMeasureError as error:
        raise CannotMeasureError(f"{peer.name}: {error}") from None
    time.sleep(load.settle)
    return Measured(count / seconds, (peer.cpu() - before) / count, used / seconds)


def children_cpu() -> float:
    """Seconds of CPU time of our ended child processes."""
    times = os.times()
    return times.children_user + times.children_system


def warm_up(peer: Peer, load: Load) -> None:
    """Send load without measuring."""
    subprocess.run(load.command(peer.port), capture_output=True, check=False)
    time.sleep(load.settle)


def rounds(peers: Sequence[Peer], load: Load, count: int) -> dict[str, list[Measured]]:
    """Put the same load on all peers."""
    return rounds_of({peer.name: (peer, load) for peer in peers}, count)


def rounds_of(cases: dict[str, tuple[Peer, Load]], count: int) -> dict[str, list[Measured]]:
    """Run `count` rounds over all cases in turn, after one warm-up round that does not count."""
    results: dict[str, list[Measured]] = {name: [] for name in cases}
    for number in range(count + 1):
        for name, (peer, load) in cases.items():
            peer.thaw()
            if number:
                results[name].append(put_under_load(peer, load))
            else:
                warm_up(peer, dataclasses.replace(load, seconds=1))
            peer.freeze()
        if number:
            so_far = ", ".join(f"{name} {values[-1].rate:,.0f}/s" for name, values in results.items())
            say(f"  round {number} of {count}: {so_far}")
    return results


# Numbers


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """The ratios of two lists of numbers, round by round."""
    return [value / base for value, base in zip(values, baseline, strict=True)]


def median(values: Sequence[float], form: str = "{:,.0f}") -> str:
    return form.format(statistics.median(values))


def spread(values: Sequence[float], form: str = "{:,.0f}") -> str:
    """The worst and the best number: so few rounds make no percentile."""
    return f"{form.format(min(values))}-{form.format(max(values))}"


def bar(what: str, found: Sequence[float], *, least: float = 0.0, most: float = 0.0, why: str = "") -> str:
    """A line that says whether the median reaches its bar; run.py lists missed bars first.

    `why` is the known reason, shown if the bar is missed.
    """
    value = statistics.median(found)
    is_met = value >= least if least else value <= most
    meant = f"at least {least:g}" if least else f"at most {most:g}"
    reason = "" if is_met or not why else f" {why}"
    shown = f"{value:.2f} ({spread(found, '{:.2f}')})"
    return f"- {'Met:' if is_met else MISSED} {what}: {shown}, meant is {meant}.{reason}"


def rates_to(results: dict[str, list[Measured]], name: str, base: str) -> list[float]:
    """The requests per second of one peer divided by those of another, round by round."""
    return ratios([each.rate for each in results[name]], [each.rate for each in results[base]])


def rate_table(results: dict[str, list[Measured]], baselines: dict[str, str]) -> str:
    """A table of requests per second, fastest first, with ratios to each baseline: name of the peer -> heading."""
    rows = []
    for name in sorted(results, key=lambda name: -statistics.median(each.rate for each in results[name])):
        rates = [each.rate for each in results[name]]
        compared = [cell for base in baselines for cell in ratio_cells(name, rates, base, results)]
        cpu = [each.cpu * 1e6 for each in results[name]]
        wrk = [each.load * 100 for each in results[name]]
        rows.append([name, median(rates), spread(rates), *compared, median(cpu), median(wrk) if any(wrk) else ""])
    headings = [cell for heading in baselines.values() for cell in (heading, "spread")]
    return table(["", "requests/s", "spread", *headings, "server CPU µs/request", "wrk, % of a core"], rows)


def ratio_cells(name: str, rates: Sequence[float], base: str, results: dict[str, list[Measured]]) -> list[str]:
    of_base = ratios(rates, [each.rate for each in results[base]])
    shown = "1.00 (baseline)" if name == base else median(of_base, "{:.2f}")
    return [shown, spread(of_base, "{:.2f}")]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, numbers are right-aligned."""
    body = [list(columns), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*body, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) if not i else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in body
    ]
    rule = "|" + "|".join("-" * (w + 2) if not i else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join(f"{line} |" for line in [lines[0]]) + f"\n{rule}|\n" + "\n".join(f"{line} |" for line in lines[1:])


# Charts


@dataclasses.dataclass(frozen=True)
class Line:
    name: str
    x: list[float]
    y: list[float]


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    lines: list[Line]


def draw(file: str, panels: Sequence[Panel], *, x: str, y: str, options: Options, log_x: bool = False) -> str:
    """Draw panels side by side into charts/, with the peers' matplotlib; return the Markdown that shows them."""
    chart = {"panels": [dataclasses.asdict(panel) for panel in panels], "x": x, "y": y, "log_x": log_x}
    target = options.output.parent / "charts" / file
    target.parent.mkdir(exist_ok=True)
    command = [PYTHON, str(HERE / "charts.py"), str(target)]
    subprocess.run(command, input=json.dumps(chart), text=True, env=ENVIRON, check=True)
    return f"![{', '.join(panel.title for panel in panels)}](charts/{file})\n"


def where() -> str:
    """One sentence about pinning for the results."""
    if not PINNED:
        return "Server and load shared all cores: there is one core only, or no taskset."
    return f"Server pinned to core {CORES[0]}, load to core {CORES[1]}."


def own_python() -> str:
    """The interpreter of our own clients: the one that runs this."""
    return sys.executable


def found_by(file: str, peer: Peer, *arguments: object, python: Sequence[str] = ()) -> dict[str, Any]:
    """Run one of our own clients; return its JSON. CannotMeasureError with its output if it fails."""
    command = [*(python or [own_python()]), str(HERE / file), str(peer.port), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CannotMeasureError(f"{peer.name}: {ran.stderr[-500:]}")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found
