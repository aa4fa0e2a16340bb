"""--jobs, --job, --cancel-job and --retry-job: durable jobs of a running server, or of a store without a server.

The command connects to the keeper of the store. If there is none, it is the keeper for the moment.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from ..core.errors import ConfigurationError
from ..core.job_errors import JobError
from ..core.printing import columns, local_time, print_lines, printable
from ..jobs.opening import new_owner, store_of
from ..jobs.records import AttemptRecord, Record, State
from ..jobs.requests.documents import document_of, encoded
from ..jobs.states import Refusal
from ..jobs.store import Store
from .job_flags import JobCommand

MAX_LISTED, PAGE_SIZE = 1000, 200
"""Durable jobs that `--jobs` prints at most, the newest ones; and how many it asks for at a time."""

DEATH_TIME = 30.0
"""Seconds for which `--cancel-job` waits for the death of the worker; it takes a tenth of a second."""


class CommandFailed(Exception):
    """The command cannot be carried out. The command line prints the message."""


def run_job_command(asked: JobCommand, store: str, *, as_json: bool = False) -> None:
    """Carry out a command and print its result. SystemExit(1) if it cannot be carried out.

    Args:
        asked: The command.
        store: The setting `jobs`.
        as_json: Print documents, one a line, instead of a table.

    Raises:
        ConfigurationError: The store does not exist or cannot be opened.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        lines = asyncio.run(_carry_out(asked, store, as_json))
    except (CommandFailed, JobError) as error:
        print(f"tinysvc: {error}", file=sys.stderr)
        sys.exit(1)
    print_lines(lines)


async def _carry_out(asked: JobCommand, store: str, as_json: bool) -> list[str]:
    async with _opened(store) as opened:
        if asked.flag == "--jobs":
            return await _listed(opened, asked.value, as_json)
        record = await _COMMANDS[asked.flag](opened, asked.value)
    return [encoded(document_of(record, with_exceptions=True)).decode()] if as_json else _shown(record)


@asynccontextmanager
async def _opened(text: str) -> AsyncIterator[Store]:
    if "://" not in text and not await asyncio.to_thread(Path(text).exists):
        raise ConfigurationError(
            f"there is no store {text} in {Path.cwd()}; name the one of the server, as in --jobs /path/to/jobs.db"
        )
    store = store_of(text)
    await store.open(new_owner(), "")  # it runs no attempts, and serves no service
    try:
        yield store
    finally:
        await store.aclose()


async def _listed(store: Store, state: str, as_json: bool) -> list[str]:
    records: list[Record] = []
    counts: Mapping[str, int] = {}
    cursor = ""
    while not records or (cursor and len(records) < MAX_LISTED):
        page = await store.page(None, State(state) if state else None, PAGE_SIZE, cursor)
        counts, cursor = page.counts, page.next
        records += page.records
        if not page.records:
            break
    if as_json:
        return [encoded(document_of(each, with_exceptions=True)).decode() for each in records]
    summary = ", ".join(f"{counts[each]} {each}" for each in State if counts.get(each)) or "no durable jobs"
    if not records:
        return [summary]
    rows = [("ID", "STATE", "DONE", "USED", "ACCEPTED", "ROUTE", ""), *map(_row, records)]
    more = [f"only the newest {len(records)} are shown"] if cursor else []
    return [*columns(rows).splitlines(), *more, summary]


async def _get(store: Store, job_id: str) -> Record:
    record = await store.get(job_id)
    if record is None:
        raise CommandFailed(f"there is no durable job {job_id}; --jobs lists all of them")
    if record.expired:
        raise CommandFailed(f"the durable job {job_id} of {record.route} was deleted at the end of its retention")
    return record


async def _cancel(store: Store, job_id: str) -> Record:
    changed = asyncio.Event()
    end_watch = store.watch(lambda change: changed.set())
    try:
        outcome = await store.cancel(job_id)
        record = await _get(store, job_id)
        if outcome.kind == "ended":
            raise CommandFailed(f"the durable job {job_id} has {record.state} already: there is nothing to cancel")
        async with asyncio.timeout(DEATH_TIME):
            while record.owner:
                await changed.wait()
                changed.clear()
                record = await _get(store, job_id)
    except TimeoutError:
        raise CommandFailed(
            f"the durable job {job_id} is cancelled, but the server process {record.owner} has not killed its worker "
            f"within {DEATH_TIME:g} s"
        ) from None
    finally:
        end_watch()
    return record


async def _retry(store: Store, job_id: str) -> Record:
    record = await _get(store, job_id)
    retried = await store.retry(job_id)
    if isinstance(retried, Refusal):
        raise CommandFailed(f"the durable job {job_id} is {record.state}: only a failed one can be started again")
    return await _get(store, job_id) if retried is None else retried


_COMMANDS: dict[str, Callable[[Store, str], Awaitable[Record]]] = {
    "--job": _get,
    "--cancel-job": _cancel,
    "--retry-job": _retry,
}


# For people


def _row(record: Record) -> tuple[str, ...]:
    return (
        record.id,
        record.state,
        _percent(record),
        f"{record.used}/{record.max_attempts}",
        local_time(record.created),
        printable(record.path or record.route),
        _last_words(record),
    )


def _shown(record: Record) -> list[str]:
    facts = {
        "id": record.id,
        "route": printable(record.path or record.route),
        "state": record.state,
        "done": " ".join([_percent(record), *_values(record)]).strip(),
        "priority": str(record.priority or ""),
        "accepted": local_time(record.created),
        "due": local_time(record.due) if record.state == State.SCHEDULED else "",
        "ended": local_time(record.ended),
        "kept until": local_time(record.expires),
        "problem": printable(_last_words(record)),
        "attempts": f"{record.used} of {record.max_attempts} used"
        + (", has saved a value" if record.has_saved else ""),
    }
    lines = columns([(name, value) for name, value in facts.items() if value]).splitlines()
    if record.attempts:
        lines += ["", *columns([_attempt(each) for each in record.attempts]).splitlines()]
    return lines


def _attempt(attempt: AttemptRecord) -> tuple[str, ...]:
    ended = attempt.ended
    time = "" if ended is None else f"{max(0.0, ended - attempt.started):.1f} s"
    cause = attempt.cause or "running"
    counted = cause if attempt.counts else f"{cause} (does not count)"
    return (f"  {attempt.number}", local_time(attempt.started), time, counted, printable(attempt.detail))


def _percent(record: Record) -> str:
    if record.state == State.SUCCEEDED:
        return "100 %"
    fraction = None if record.progress is None else record.progress.fraction
    return "" if fraction is None else f"{fraction:.0%}".replace("%", " %")


def _values(record: Record) -> list[str]:
    values = {} if record.progress is None else record.progress.values
    return [printable(f"{name}={value}") for name, value in values.items()]


def _last_words(record: Record) -> str:
    if record.state == State.SCHEDULED:
        return f"starts {local_time(record.due)}"
    if record.problem is None or record.state != State.FAILED:
        return ""
    kind = str(record.problem.get("type", "")).removeprefix("urn:tinysvc:")
    if kind == "about:blank":
        kind = record.attempts[-1].cause if record.attempts else ""
    return printable(" ".join(filter(None, (kind, str(record.problem.get("detail", ""))))))[:120]
