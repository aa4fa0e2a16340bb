"""The command line: `python -m tinysvc TARGET`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from . import __version__
from .cli.job_flags import JobCommand, add_job_flags
from .core.errors import ConfigurationError
from .core.optional_libraries import missing_library
from .core.setting_values import did_you_mean, wrong_value
from .core.settings import Settings, load_settings
from .server.loading import load_service
from .server.run import exit_on_failure, run_loaded, show
from .service.service import Service

_EXAMPLES = """\
examples:
  python -m tinysvc hello.py                  a file
  python -m tinysvc package.module            a module
  python -m tinysvc package.module:service    a Service in a module
  python -m tinysvc examples                  a folder: every service in it, each under its own /name
  python -m tinysvc hello.py --port 0         on a free port
  python -m tinysvc hello.py --unix /tmp/hello.sock
  python -m tinysvc hello.py --reload         restart when the file changes
  python -m tinysvc hello.py --client > hello_client.py
  python -m tinysvc hello.py --proto > hello.proto
  python -m tinysvc --client http://127.0.0.1:8000 > hello_client.py
  python -m tinysvc hello.py --jobs failed    list the durable jobs that have failed
  python -m tinysvc hello.py --cancel-job ID  cancel a durable job, and wait until its worker is dead
  python -m tinysvc --stacks 4711             what a running server and its workers do at this moment
  python -m tinysvc --new hello               write a first service, with tests and a Dockerfile
  python -m tinysvc hello.py --workers 4      four server processes; each gets 2 of 8 CPU workers

Every option can also be set as a variable: --cpu-workers is TINYSVC_CPU_WORKERS.
"""

SHOWN = {
    "routes": "the routes",
    "openapi": "the OpenAPI document",
    "settings": "every option, its value and its origin",
    "proto": "the .proto file of the service for gRPC; --check compares it with the committed file",
    "client": "a module with typed functions that call the service, or the one that runs at the URL TARGET",
}


OTHERS = ("new", "bench", "version", "job", "cancel_job", "retry_job", "json", "stacks", "check")
"""Further flags that are no settings."""


def parser() -> argparse.ArgumentParser:
    """The flags are the fields of Settings."""
    command = argparse.ArgumentParser(
        prog="tinysvc",
        usage="python -m tinysvc [OPTION ...] TARGET",
        allow_abbrev=False,  # a new option would change what an abbreviation means
        description="Serve io_route handlers on the event loop, cpu_route and job_route handlers in worker processes.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="a file, a folder, a module, or module:service; for --client also a URL",
    )
    command.add_argument("--new", metavar="NAME", help="write a small, complete service to the folder NAME, and exit")
    for subject, about in SHOWN.items():
        command.add_argument(
            f"--{subject}", action="store_const", const=subject, dest="show", help=f"print {about}, and exit"
        )
    command.add_argument(
        "--check",
        action="store_true",
        help="with --proto: exit with 1 if the code breaks clients of the committed file",
    )
    command.add_argument(
        "--bench",
        action="store_true",
        help="measure the io routes while sample requests saturate the cpu routes, and exit",
    )
    command.add_argument(
        "--stacks",
        type=int,
        metavar="PID",
        help="print the Python stacks of a running server and of its workers, or of one worker, and exit",
    )
    command.add_argument("--version", action="version", version=f"tinysvc {__version__}")
    for field in dataclasses.fields(Settings):
        if field.name == "jobs":
            add_job_flags(command, f"{field.metadata['help']} (default: {field.default!r})")
            continue
        flag, about = _flag(field.name), f"{field.metadata['help']} (default: {field.default!r})"
        kind = type(field.default)
        if kind is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=about)
        else:
            metavar = {int: "N", float: "SECONDS", str: "TEXT"}[kind]
            command.add_argument(flag, type=partial(_read, kind), metavar=metavar, help=about)
    return command


def _read(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(wrong_value(kind, text)) from None


def main(arguments: Sequence[str] | None = None) -> None:
    command = parser()
    found, unknown = command.parse_known_args(arguments)
    if unknown:
        command.error(_no_option(unknown[0]))
    options = vars(found)
    target, subject, new, is_bench, pid = (options.pop(name) for name in ("target", "show", "new", "bench", "stacks"))
    checks = options.pop("check")
    job_command, as_json, jobs_target = (options.pop(name, None) for name in ("job_command", "json", "jobs_target"))
    if pid is not None:
        print_stacks(pid)
        return
    if target and jobs_target:
        command.error(f"--jobs takes a state or a store, and {jobs_target} is neither")
    target = target or jobs_target
    if job_command and not new:
        ask_about_jobs(job_command, target, options, as_json=as_json)
        return
    if checks and subject != "proto":
        command.error("--check belongs to --proto, as in --proto --check")
    if as_json:
        command.error("--json belongs to a command for durable jobs, as in --jobs --json")
    if bool(target) == bool(new):
        command.error("name one TARGET to serve, or --new NAME")
    if new:
        write_new(new)
    elif is_bench:
        measure(target, options)
    elif subject == "proto":
        print_proto(target, options, checks=checks)
    elif subject == "client":
        print_client(target, options)
    elif subject:
        show(subject, lambda: _load(target, options), options)
    else:
        run_loaded(lambda: _load(target, options), options)


def _load(target: str, options: Mapping[str, Any]) -> Service:
    return load_service(target, strict=load_settings(options, os.environ).strict)


def ask_about_jobs(asked: JobCommand, target: str | None, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Print durable jobs. With a target, its service may name the store."""
    from .cli.job_commands import run_job_command

    with exit_on_failure():
        service_options = _load(target, options).options if target else {}
        run_job_command(asked, load_settings(options, os.environ, service_options).jobs, as_json=as_json)


def _no_option(word: str) -> str:
    if not word.startswith("-"):
        return f"{word} is a second TARGET, but only one is served; name a folder to serve all services in it"
    known = [*SHOWN, *OTHERS, *(field.name for field in dataclasses.fields(Settings))]
    flag = word.partition("=")[0]
    return f"{flag} is no option{did_you_mean(flag.lstrip('-').replace('-', '_'), known, _flag)}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def write_new(name: str) -> None:
    from .cli.scaffold import create

    try:
        print(create(name))
    except ConfigurationError as error:
        print(f"tinysvc: {error}", file=sys.stderr)
        sys.exit(2)


def print_stacks(pid: int) -> None:
    from .cli.stacks import stacks_of

    try:
        print(stacks_of(pid), end="")
    except ConfigurationError as error:
        print(f"tinysvc: {error}", file=sys.stderr)
        sys.exit(2)


def print_proto(target: str, options: Mapping[str, Any], *, checks: bool) -> None:
    """Print the .proto file, or compare it with the committed one."""
    if missing := missing_library("protobuf"):
        print(f"tinysvc: {missing}", file=sys.stderr)
        sys.exit(2)
    from .cli.proto import run_proto

    with exit_on_failure():
        sys.exit(run_proto(lambda: _load(target, options), target, checks=checks))


def print_client(target: str, options: Mapping[str, Any]) -> None:
    from .cli.client_stubs import client_module

    with exit_on_failure():
        print(client_module(target, lambda: _load(target, options), options), end="")


def measure(target: str, options: Mapping[str, Any]) -> None:
    from .cli.bench import bench

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with exit_on_failure():
        print(bench(_load(target, options), options))


if __name__ == "__main__":
    main(sys.argv[1:])
