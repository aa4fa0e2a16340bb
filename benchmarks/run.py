"""Measure tinysvc beside its peers and write RESULTS.md. README.md explains each number and its weaknesses.

Needs Python 3.11 or newer and wrk. All other tools are installed once, into .venv-bench beside this folder.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from pathlib import Path

from harness import ENVIRONMENT, HERE, MISSED, PYTHON, ROOT, CannotMeasureError, Options, say

PARTS = (
    "io",
    "typed",
    "kusers",
    "cpu",
    "batch",
    "payload",
    "web",
    "idle",
    "start",
    "scale",
    "faults",
    "calls",
    "jobs",
    "capacity",
    "telemetry",
    "rollout",
    "models",
    "grpc",
)
EXTRA = ("trees",)
"""A part that needs an option, and so runs only when it is named."""

ALL_PARTS = (*PARTS, *EXTRA)
QUICK = ("io", "cpu", "start")
"""The parts of a quick run: two minutes in all."""

WITHOUT_WRK = {"grpc", "models", "rollout", "kusers", "payload", "idle", "start", "faults"}

WRITTEN = ("benchmarks/RESULTS.md", "benchmarks/charts")

REQUIREMENTS, OPTIONAL = HERE / "requirements.txt", HERE / "requirements-optional.txt"
CONSTRAINTS = HERE / "constraints.txt"
STAMP = ENVIRONMENT / ".ready"

HEAD = """\
# Results

Written by `benchmarks/run.py`; do not edit. README.md explains each number. Every part names its own date, machine \
and command, because parts can be measured one by one.
"""

SHOWN_VERSIONS = (
    *("tinysvc", "uvloop", "httptools", "orjson", "msgspec", "pydantic", "numpy"),
    *("uvicorn", "starlette", "fastapi", "litestar", "blacksheep", "granian", "aiohttp", "sanic", "robyn"),
    *("litserve", "mosec", "bentoml", "websockets", "httpx"),
    *("prometheus_client", "starlette_exporter", "prometheus-fastapi-instrumentator", "opentelemetry-sdk"),
    *("asyncpg", "celery", "rq", "huey", "procrastinate"),
)


def main() -> None:
    arguments = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):  # end the peers, as after Ctrl-C
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    parts = arguments.only or (QUICK if arguments.quick else PARTS)
    output = arguments.output or HERE / ("quick" if arguments.quick else "") / "RESULTS.md"
    output.parent.mkdir(exist_ok=True)
    if shutil.which("wrk") is None and not WITHOUT_WRK.issuperset(parts):
        stop("wrk, the load generator, is missing; install it with: apt-get install wrk")
    set_up(may_install=not arguments.no_setup)
    options = Options(quick=arguments.quick, output=output, before=arguments.before)
    for name in parts:
        part = importlib.import_module(f"parts.{name}")
        say(f"{part.TITLE}")
        load, begin = os.getloadavg()[0], time.monotonic()
        try:
            text = part.measure(options)
        except CannotMeasureError as error:
            print(f"{name}: {error}", file=sys.stderr)
            sys.exit(1)
        notes = provenance(name, options, load, time.monotonic() - begin)
        write_section(output, name, f"## {part.TITLE}\n\n{text}\n{notes}")
        say(f"  written to {output}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"fewer, shorter rounds of {', '.join(QUICK)}, or of the parts that are named: two minutes, rough numbers",
    )
    parser.add_argument("--only", action="append", choices=ALL_PARTS, help="this part only; may be given again")
    parser.add_argument("--before", default="", metavar="COMMIT", help="the earlier tree of the part `trees`")
    parser.add_argument(
        "--output", type=Path, help="default: benchmarks/RESULTS.md; of a quick run benchmarks/quick/RESULTS.md"
    )
    parser.add_argument(
        "--no-setup", action="store_true", help="never install; end with status 2 if something is missing"
    )
    return parser.parse_args()


def stop(sentence: str) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(2)


# The environment


def set_up(*, may_install: bool) -> None:
    """Make .venv-bench with the pinned peers and this checkout of tinysvc, unless it is up to date."""
    wanted = fingerprint()
    if "BENCH_ENVIRONMENT" in os.environ:
        return  # an environment of the caller
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    if not may_install:
        stop(f"{ENVIRONMENT.name} is not set up, or not for these requirements; `make bench` does that")
    say(f"setting up {ENVIRONMENT.name} with Python {platform.python_version()} (once)")
    try:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        install("--editable", str(ROOT), "--requirement", str(REQUIREMENTS))
    except subprocess.CalledProcessError as error:
        stop(f"pip could not set up {ENVIRONMENT.name} (status {error.returncode}); see its output above")
    for peer in re.findall(r"^[^#\s]+", OPTIONAL.read_text(), re.MULTILINE):
        try:
            install(peer, "--constraint", str(REQUIREMENTS))
        except subprocess.CalledProcessError:
            say(f"going on without {peer}: pip could not install it")
    STAMP.write_text(wanted)


def fingerprint() -> str:
    """A hash of all requirements; tinysvc itself is an editable install of this checkout."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [*(file.read_text() for file in (REQUIREMENTS, OPTIONAL, CONSTRAINTS)), *dependencies]
    return f"{sys.base_prefix} {platform.python_version()} {hashlib.sha256(repr(wanted).encode()).hexdigest()}\n"


def install(*arguments: str) -> None:
    command = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--constraint",
        str(CONSTRAINTS),
    ]
    subprocess.run([*command, *arguments], check=True)


# The results


def provenance(name: str, options: Options, load: float, seconds: float) -> str:
    command = f"python3 benchmarks/run.py --only {name}{' --quick' if options.quick else ''}"
    command += f" --before {options.before}" if options.before else ""
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return (
        f"Measured {now} in {seconds:.0f} s with `{command}` at {commit()}; load average before: {load:.2f}.\n"
        f"{machine()}. {versions()}.\n"
    )


def commit() -> str:
    """The commit of tinysvc, and whether the checkout has changes besides the results."""
    try:
        name = git("rev-parse", "--short", "HEAD")
        is_changed = git("status", "--porcelain", "--", ".", *(f":!{written}" for written in WRITTEN))
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return f"commit {name}{', with changes' if is_changed else ''}"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    processor = found[1] if found else platform.machine()
    library = "shared libpython" if sysconfig.get_config_var("Py_ENABLE_SHARED") else "static libpython"
    python = f"Python {platform.python_version()} ({platform.python_compiler()}, {library})"
    return f"{processor}, {cores} cores, {memory:.0f} GiB, Linux {platform.release()}, {python}"


def versions() -> str:
    code = (
        "import sys; from importlib import metadata as m; installed = {d.name.lower(): d.version for d in"
        " m.distributions()}; print(', '.join(f'{n} {installed[n]}' for n in sys.argv[1:] if n in installed))"
    )
    listed = subprocess.run([PYTHON, "-c", code, *SHOWN_VERSIONS], capture_output=True, text=True, check=True)
    if shutil.which("wrk") is None:
        return listed.stdout.strip()
    wrk = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return f"{listed.stdout.strip()}, wrk {wrk.split()[1]}"


def write_section(output: Path, name: str, text: str) -> None:
    """Replace the section of one part; the other parts keep their results."""
    sections = read_sections(output)
    sections[name] = text
    body = [f"<!-- part {each} -->\n{sections[each].strip()}\n" for each in ALL_PARTS if each in sections]
    output.write_text("\n".join([HEAD, missed(sections), *body]))


def missed(sections: dict[str, str]) -> str:
    """List the missed bars first."""
    lines = re.findall(rf"^- {MISSED} (.*)$", "\n".join(sections.get(part, "") for part in ALL_PARTS), re.MULTILINE)
    if not lines:
        return "Every bar is met.\n"
    return "\n".join(["What misses its bar, in these runs:\n", *(f"- {line}" for line in lines)]) + "\n"


def read_sections(output: Path) -> dict[str, str]:
    if not output.exists():
        return {}
    pieces = re.split(r"^<!-- part (\w+) -->$", output.read_text(), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
