"""`--reload`: replace the service when its code changes, while it keeps serving.

    reloader ──exec──> server process of the version that serves
        └─────exec───> server process of the next version; once it is ready, the other one drains

The reloader runs none of the author's code: each version is the same command line in a fresh interpreter and in its own
session, without any state of the last version. The reloader owns the address: all versions accept connections from the
same socket, which they receive over their links as a supervisor's processes do. So no connection is refused or reset.
While no version serves, because the first one has an error or the last one has died, requests wait for the next one.

A server process reports the folders of the author's modules, also of modules that cannot be imported. The reloader
watches the Python files in these folders.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import Any

from ..core.errors import ConfigurationError
from ..core.exit_with_parent import exit_with_parent
from ..core.settings import Settings
from ..core.shutdown import awake_timeout
from ..core.systemd import notify, notify_alive, notify_reload, watchdog_time
from ..pool.importable import refuse_frozen
from ..service.service import Service
from .heartbeat import BEATS, FOR_EVER, Heartbeat
from .loading import is_authors
from .server_process import LATE, ProcessFailed, SupervisorLink, end_in_words, send_sockets, start_log
from .sockets import (
    RELOADER,
    grpc_line,
    grpc_sockets,
    listener_url,
    listening_sockets,
    metrics_line,
    metrics_sockets,
    socket_addresses,
)

log = logging.getLogger("tinysvc")

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of one report of a server process; 1000 folders or routes are more than asyncio's default of 64 KiB."""

CHECK_FOLDERS = 1000
"""Milliseconds between checks whether a removed folder exists again: the system does not report that."""

CANNOT_WATCH = (
    "--reload: the system refuses to watch the code (%s); its files are checked every %g s instead, as with "
    "WATCHFILES_FORCE_POLLING=1. Raise fs.inotify.max_user_instances and max_user_watches to see changes at once"
)

POLL_PAUSE = 0.5
"""Seconds between two checks of the files where the system does not report changes."""


def _states(folders: Iterable[str]) -> set[tuple[str, tuple[int, ...]]]:
    """The Python files in these folders, each with time, size and inode, which change when it is written."""
    found: set[tuple[str, tuple[int, ...]]] = set()
    for folder in folders:
        with suppress(OSError):  # the folder or a file was removed at this moment
            for entry in os.scandir(folder):
                if entry.name.endswith((".py", ".pyx", ".pyd")):
                    state = entry.stat()
                    found.add((entry.path, (state.st_mtime_ns, state.st_size, state.st_ino)))
    return found


def reload(settings: Settings, announce: Callable[[str], None], terminal_closed: Callable[[], bool]) -> None:
    """Serve until a signal arrives, and start a new version at each change.

    Raises:
        ConfigurationError: watchfiles is not installed.
        ProcessFailed: The first version failed, and no change of code can help.
    """
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise ConfigurationError("--reload needs the library watchfiles: pip install 'tinysvc[reload]'") from None
    refuse_frozen("--reload")
    start_log(settings)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # the reloader itself logs the changes
    asyncio.run(Reloader(settings, announce, terminal_closed).run())


class Version:
    """A server process with one version of the code."""

    def __init__(self, process: asyncio.subprocess.Process, link: socket.socket) -> None:
        self.process = process
        self.link = link
        self.folders: set[str] = set()
        self.failure: ProcessFailed | None = None

    async def reports(self) -> AsyncIterator[dict[str, Any]]:
        """Its reports, until it has ended."""
        reader, writer = await asyncio.open_connection(sock=self.link.dup(), limit=LONGEST_LINE)
        try:
            while line := await reader.readline():
                yield json.loads(line)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


class Reloader:
    """The version that serves, the next version, and the folders that are watched."""

    def __init__(
        self, settings: Settings, announce: Callable[[str], None], terminal_closed: Callable[[], bool]
    ) -> None:
        self.settings = settings
        self.announce = announce
        self.terminal_closed = terminal_closed
        self.serving: Version | None = None
        self.next: Version | None = None
        self.listeners: list[socket.socket] = []
        self.metrics_listeners: list[socket.socket] = []
        self.grpc_sockets: list[socket.socket] = []
        self.routes = ""
        self.failure: ProcessFailed | None = None
        self._tasks: dict[Version, asyncio.Task[None]] = {}
        self._sockets = ExitStack()
        self._ended = asyncio.Event()
        self._folders_changed = asyncio.Event()  # other folders must be watched
        self._reported: set[str] = set()  # the folders to watch, also those that do not exist at the moment
        self._watched: set[str] = set()  # the folders that are watched
        self._seen: set[tuple[str, tuple[int, ...]]] = set()  # their files before the last version was started
        self._polls = False  # the system refuses to report changes

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        watching = asyncio.create_task(self._watch())
        heartbeat = Heartbeat(watchdog_time() / BEATS or FOR_EVER, lambda: True, notify_alive)
        try:
            await self._start()
            await self._ended.wait()
        finally:
            heartbeat.cancel()
            notify("STOPPING=1")
            watching.cancel()
            self._sockets.close()
            await self._end()
        if self.failure:
            raise self.failure

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and not self.terminal_closed():
            if self.serving:
                notify_reload(
                    partial(self.serving.signal, number)
                )  # a version that starts reads the certificates anyway
            return
        if self._ended.is_set():
            for version in self._tasks:
                version.signal(signal.SIGKILL)
        self._ended.set()

    async def _end(self) -> None:
        for version in self._tasks:
            version.signal(signal.SIGTERM)
        if self._tasks:
            with suppress(TimeoutError):
                async with awake_timeout(self.settings.shutdown_timeout + LATE):
                    await asyncio.wait(self._tasks.values())
        for version in self._tasks:
            log.error("killed, because it did not end in time: %d", version.process.pid)
            version.signal(signal.SIGKILL)
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _fail(self, failure: ProcessFailed) -> None:
        self.failure = failure
        self._ended.set()

    # Versions

    async def _start(self) -> None:
        """Start the next version; end a version that is not ready yet."""
        self._seen = _states(self._existing() | self._watched)
        outdated, self.next = self.next, None  # from now on its reports are ignored
        if outdated:
            outdated.signal(signal.SIGTERM)
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                pass_fds=[theirs.fileno()],
                env={**os.environ, RELOADER: str(theirs.fileno()), "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,  # a Ctrl-C at the terminal reaches only the reloader
            )
        self.next = version = Version(process, ours)
        self._tasks[version] = asyncio.create_task(self._follow(version))

    async def _follow(self, version: Version) -> None:
        """Read its reports until it ends."""
        with version.link:
            async for report in version.reports():
                self._on_report(version, report)
            exit_code = await version.process.wait()
        del self._tasks[version]
        self._on_end(version, exit_code)

    def _on_report(self, version: Version, report: dict[str, Any]) -> None:
        if "folders" in report:
            before = self._existing()
            version.folders = set(report["folders"])
            self._seen |= _states(version.folders - before)
            if not self._existing() <= self._watched:  # otherwise keep the watcher: a new one would miss changes
                self._folders_changed.set()
        elif "failed" in report:
            version.failure = ProcessFailed(*report["failed"])
        elif "settings" in report:
            self._give_listeners(version, Settings(**report["settings"]), report["routes"])
        elif version is self.next:
            self._promote(version)

    def _give_listeners(self, version: Version, settings: Settings, routes: str) -> None:
        self.routes = routes
        if not self.listeners:
            self.settings = settings
            try:
                self.listeners = self._sockets.enter_context(listening_sockets(settings, os.environ))
                self.metrics_listeners = self._sockets.enter_context(metrics_sockets(settings))
                self.grpc_sockets = self._sockets.enter_context(grpc_sockets(settings, self.listeners))
            except ConfigurationError as error:
                self._fail(ProcessFailed(str(error), 3))
                return
        send_sockets(version.link, self.listeners, self.metrics_listeners, self.grpc_sockets)

    def _promote(self, version: Version) -> None:
        """The version serves: end the one before it."""
        before, self.serving, self.next = self.serving, version, None
        if before:
            before.signal(signal.SIGTERM)
        scheme = "https" if self.settings.ssl_cert else "http"
        urls = " and ".join(listener_url(listener, scheme) for listener in self.listeners)
        others = metrics_line(self.metrics_listeners) + grpc_line(socket_addresses(self.grpc_sockets))
        self.announce(f"{self.routes}\n{others}listening on {urls} and reloading when its code changes")

    def _on_end(self, version: Version, exit_code: int) -> None:
        why = str(version.failure) if version.failure else f"the process {end_in_words(exit_code)}"
        if version is self.next and not self._ended.is_set():
            self.next = None
            if version.failure and not version.folders and not self.listeners:  # the cause is not in the code
                self._fail(version.failure)
            else:
                log.error("%s\n%s", why, "the last version keeps serving" if self.serving else "waiting for a change")
        elif version is self.serving:
            self.serving = None
            if not self._ended.is_set():
                log.error("%s; waiting for a change; requests wait, too", why)

    # Changes

    def _existing(self) -> set[str]:
        """The folders that the running versions have reported, or the last version if none runs, and that exist."""
        reported = {folder for version in self._tasks for folder in version.folders}
        self._reported = reported or self._reported
        return {folder for folder in self._reported if os.path.isdir(folder)}

    async def _watch(self) -> None:
        """Start the next version at each change, found by a watcher or by polling."""
        while True:
            await self._folders_changed.wait()
            self._folders_changed = asyncio.Event()
            if not (watched := self._existing()):  # the system would not report that one exists again
                await asyncio.sleep(CHECK_FOLDERS / 1000)
                self._folders_changed.set()
                continue
            self._watched = watched
            try:
                await (self._poll() if self._polls else self._start_at_changes(watched))
            except FileNotFoundError:  # a folder was removed at this moment
                await asyncio.sleep(CHECK_FOLDERS / 1000)
                self._folders_changed.set()
            except (OSError, RuntimeError) as error:  # watchfiles has a RuntimeError of its own for some
                log.warning(CANNOT_WATCH, error, POLL_PAUSE)
                self._polls = True
                self._folders_changed.set()

    async def _start_at_changes(self, watched: set[str]) -> None:
        """Until other folders must be watched. OSError or RuntimeError where the system refuses to watch these."""
        from watchfiles import PythonFilter, awatch

        is_python = PythonFilter()

        def is_code(change: Any, path: str) -> bool:
            if change.name == "deleted":  # if it is created again, it needs a new watcher
                self._watched.discard(path)
            return is_python(change, path)

        changes = awatch(
            *watched,
            watch_filter=is_code,
            stop_event=self._folders_changed,
            recursive=False,
            rust_timeout=CHECK_FOLDERS,
            yield_on_timeout=True,
        )
        async for each in changes:
            if paths := {path for _, path in each} or self._reappeared() or self._changed():
                await self._start_for(paths)

    async def _start_for(self, changed: Iterable[str]) -> None:
        names = sorted({Path(path).name for path in changed})
        log.info("%s changed; starting the new version", ", ".join(names))
        await self._start()

    async def _poll(self) -> None:
        """Like `_start_at_changes`, by polling. watchfiles would miss the second of two edits within one second."""
        while not self._folders_changed.is_set():
            await asyncio.sleep(POLL_PAUSE)
            if changed := self._changed() or self._reappeared():
                self._watched &= self._existing()
                await self._start_for(changed)

    def _changed(self) -> set[str]:
        """Files that differ from those before the last version was started.

        A change between the end of one watcher and the start of the next is reported by neither.
        """
        changed = self._seen ^ _states(self._watched)
        return {path for path, _ in changed if os.path.dirname(path) in self._watched}

    def _reappeared(self) -> set[str]:
        """Folders that were removed and exist again; they get a new watcher."""
        folders = self._existing() - self._watched
        if folders:
            self._folders_changed.set()
        return folders


# In a server process


def link_to_reloader() -> SupervisorLink:
    """The link of a server process that a reloader has started; its children do not inherit it."""
    link = SupervisorLink(socket.socket(fileno=int(os.environ.pop(RELOADER))))
    link.socket.set_inheritable(False)
    exit_with_parent(link.socket, True)
    return link


def load_reporting_folders(link: SupervisorLink, load: Callable[[], Service]) -> Service:
    """Call `load`, and report the folders to watch to the reloader, also if it raises."""
    try:
        service = load()
    except BaseException as error:
        link.report(folders=folders(error))
        raise
    link.report(folders=folders())
    return service


def folders(error: BaseException | None = None) -> list[str]:
    """The folders of all modules of the author, and of the files in the traceback of an error."""
    modules = [module for module in list(sys.modules.values()) if _is_authors_file(getattr(module, "__file__", None))]
    packages = [path for module in modules for path in getattr(module, "__path__", ())]
    files = [*(module.__file__ for module in modules), *filter(_is_authors_file, _files_of(error))]
    below = [folder for package in packages for folder, _, _ in os.walk(package) if "__pycache__" not in folder]
    return sorted({*below, *(str(Path(str(file)).resolve().parent) for file in files)})


def _is_authors_file(file: str | None) -> bool:
    return file is not None and is_authors(file) and os.path.exists(file)


def _files_of(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename:
            yield error.filename
        yield from (frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__))
        error = error.__cause__ or error.__context__
