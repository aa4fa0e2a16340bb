"""The options of the command line for durable jobs.

    --jobs [STATE]      list them             --cancel-job ID     cancel one
    --job ID            show one              --retry-job ID      start a failed one again

`--jobs` is also the flag of the setting `jobs`, the store. A store has a dot or a slash in it, as in jobs.db or
./jobs, and a state has none.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.setting_values import did_you_mean
from ..service.job_document import JOB_STATES

ID = re.compile(r"[0-9a-f]{32}")


class JobCommand(NamedTuple):
    """A command about durable jobs."""

    flag: str
    value: str
    """The id; for `--jobs` the state, "" for all."""


def add_job_flags(command: argparse.ArgumentParser, about_store: str) -> None:
    """Add the options; `about_store` is the meaning of the setting `jobs`."""
    command.add_argument(
        "--jobs",
        action=_JobsAction,
        nargs="?",
        metavar="STATE|STORE",
        help=f"without a value, or with a state: list durable jobs, and exit; else: {about_store}",
    )
    for flag, about in (
        ("--job", "show a durable job, and exit"),
        ("--cancel-job", "cancel a durable job, and exit when its worker is dead; dismiss a failed one"),
        ("--retry-job", "start a failed durable job again, and exit"),
    ):
        command.add_argument(flag, action=_JobAction, metavar="ID", help=about)
    command.add_argument("--json", action="store_true", help="print durable jobs as JSON, one a line")


def _ask(parser: argparse.ArgumentParser, namespace: argparse.Namespace, asked: JobCommand) -> None:
    before: JobCommand | None = getattr(namespace, "job_command", None)
    if before is not None:
        parser.error(f"{before.flag} and {asked.flag} are two commands; give one of them")
    namespace.job_command = asked


class _JobsAction(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        text: str = values or ""
        if text in ("", *JOB_STATES):
            _ask(parser, namespace, JobCommand("--jobs", text))
        elif text.endswith(".py"):  # `--jobs hello.py`: no state was meant
            namespace.jobs_target = text
            _ask(parser, namespace, JobCommand("--jobs", ""))
        elif "." in text or "/" in text:
            namespace.jobs = text
        else:
            parser.error(
                f"--jobs takes a state, or a store as in jobs.db or ./{text}, not {text!r}"
                f"{did_you_mean(text, JOB_STATES)}"
            )


class _JobAction(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        job_id = str(values).strip().lower()
        if not ID.fullmatch(job_id):
            parser.error(f"{option_string} takes an id of 32 hexadecimal digits, as --jobs prints it, not {values!r}")
        _ask(parser, namespace, JobCommand(str(option_string), job_id))
