"""`--reload`: while one writes it, the service is replaced when its code changes, and serves on meanwhile.

    reloader ──exec──> server process of the version that serves
        └─────exec───> server process of the next one; when it is ready it takes the place, and the other drains

The reloader runs no code of the author's: each version is the same command line in a fresh interpreter, in a session of
its own, so that nothing of the last one is left in it. It has the address: the versions accept from one and the same
socket, which they are given over their links, as a supervisor's processes are. So nobody is refused or cut off, and
where no version serves, because the first one is wrong or the last one has died, who asks is answered by the next.

A server process tells the folders of the author's modules, also of those that could not be imported; the reloader looks
there for files of Python that change.
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
from ..core.systemd import notify, notify_reload
from ..pool.importable import refuse_frozen
from ..service.service import Service
from .loading import is_authors
from .sockets import RELOADER, listener_url, listening_sockets
from .supervisor import LATE, Link, ProcessFailed, end_in_words, start_log

log = logging.getLogger("tinysvc")

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes a server process may tell at once; 1000 folders or routes are more than the 64 KiB that asyncio reads."""

LOOK_AGAIN = 1000
"""Milliseconds after which it is looked whether a folder that was gone is there again: nobody would say so."""

CANNOT_WATCH = (
    "--reload: the system refuses to watch the code (%s); looking at its files every %g s instead, as "
    "WATCHFILES_FORCE_POLLING=1 does. Raise fs.inotify.max_user_instances and max_user_watches to see changes at once"
)


POLL_PAUSE = 0.5
"""Seconds between two looks at the files where the system does not report changes."""


def _states(folders: Iterable[str]) -> set[tuple[str, tuple[int, ...]]]:
    """The files of Python in these folders, each with what changes when it is written."""
    found: set[tuple[str, tuple[int, ...]]] = set()
    for folder in folders:
        with suppress(OSError):  # it, or the file, was removed in this moment
            for entry in os.scandir(folder):
                if entry.name.endswith((".py", ".pyx", ".pyd")):
                    state = entry.stat()
                    found.add((entry.path, (state.st_mtime_ns, state.st_size, state.st_ino)))
    return found


def reload(settings: Settings, announce: Callable[[str], None], terminal_closed: Callable[[], bool]) -> None:
    """Serve, and serve anew at each change, until a signal comes. ProcessFailed if there is nothing to wait for."""
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise ConfigurationError("--reload needs the library watchfiles: pip install 'tinysvc[reload]'") from None
    refuse_frozen("--reload")
    start_log(settings)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # what has changed is said here
    asyncio.run(Reloader(settings, announce, terminal_closed).run())


class Version:
    """A server process with one state of the code."""

    def __init__(self, process: asyncio.subprocess.Process, link: socket.socket) -> None:
        self.process = process
        self.link = link
        self.folders: set[str] = set()
        self.failure: ProcessFailed | None = None

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """What it tells, until it has ended."""
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
    """Who serves, who is to serve next, and what is watched."""

    def __init__(
        self, settings: Settings, announce: Callable[[str], None], terminal_closed: Callable[[], bool]
    ) -> None:
        self.settings = settings
        self.announce = announce
        self.terminal_closed = terminal_closed
        self.serving: Version | None = None
        self.next: Version | None = None
        self.listeners: list[socket.socket] = []
        self.routes = ""
        self.failure: ProcessFailed | None = None
        self._lives: dict[Version, asyncio.Task[None]] = {}
        self._sockets = ExitStack()
        self._over = asyncio.Event()
        self._elsewhere = asyncio.Event()  # other folders are to be watched
        self._told: set[str] = set()  # the folders that are to be watched
        self._looking: set[str] = set()  # those of them that are
        self._seen: set[tuple[str, tuple[int, ...]]] = set()  # their files, before the last version was started
        self._polls = False  # whether the system has refused to report changes

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        watching = asyncio.create_task(self._watch())
        try:
            await self._start()
            await self._over.wait()
        finally:
            notify("STOPPING=1")
            watching.cancel()
            self._sockets.close()
            await self._end()
        if self.failure:
            raise self.failure

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and not self.terminal_closed():
            if self.serving:
                notify_reload(partial(self.serving.signal, number))  # a version that only starts reads them anyway
            return
        if self._over.is_set():
            for version in self._lives:
                version.signal(signal.SIGKILL)
        self._over.set()

    async def _end(self) -> None:
        for version in self._lives:
            version.signal(signal.SIGTERM)
        if self._lives:
            with suppress(TimeoutError):
                async with awake_timeout(self.settings.shutdown_timeout + LATE):
                    await asyncio.wait(self._lives.values())
        for version in self._lives:
            log.error("killed, as it did not end in time: %d", version.process.pid)
            version.signal(signal.SIGKILL)
        if self._lives:
            await asyncio.wait(self._lives.values())

    def _fail(self, failure: ProcessFailed) -> None:
        self.failure = failure
        self._over.set()

    # Versions

    async def _start(self) -> None:
        """The next version. One that has not come so far as to serve is given up for it."""
        self._seen = _states(self._watched() | self._looking)
        given_up, self.next = self.next, None  # from here on it may say that it is ready: nobody listens
        if given_up:
            given_up.signal(signal.SIGTERM)
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                pass_fds=[theirs.fileno()],
                env={**os.environ, RELOADER: str(theirs.fileno()), "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,  # a Ctrl-C at the terminal comes to the reloader alone
            )
        self.next = version = Version(process, ours)
        self._lives[version] = asyncio.create_task(self._live(version))

    async def _live(self, version: Version) -> None:
        """From its beginning to its end."""
        with version.link:
            async for told in version.lines():
                self._on_told(version, told)
            exit_code = await version.process.wait()
        del self._lives[version]
        self._on_end(version, exit_code)

    def _on_told(self, version: Version, told: dict[str, Any]) -> None:
        if "folders" in told:
            before = self._watched()
            version.folders = set(told["folders"])
            self._seen |= _states(version.folders - before)
            if not self._watched() <= self._looking:  # else keep the watcher: changes are lost while it is made anew
                self._elsewhere.set()
        elif "failed" in told:
            version.failure = ProcessFailed(*told["failed"])
        elif "settings" in told:
            self._give_listeners(version, Settings(**told["settings"]), told["routes"])
        elif version is self.next:
            self._promote(version)

    def _give_listeners(self, version: Version, settings: Settings, routes: str) -> None:
        self.routes = routes
        if not self.listeners:
            self.settings = settings
            try:
                self.listeners = self._sockets.enter_context(listening_sockets(settings, os.environ))
            except ConfigurationError as error:
                self._fail(ProcessFailed(str(error), 3))
                return
        with suppress(OSError):  # it has died
            socket.send_fds(version.link, [b" "], [listener.fileno() for listener in self.listeners])

    def _promote(self, version: Version) -> None:
        """It serves: who did so until now may go."""
        before, self.serving, self.next = self.serving, version, None
        if before:
            before.signal(signal.SIGTERM)
        scheme = "https" if self.settings.ssl_cert else "http"
        urls = " and ".join(listener_url(listener, scheme) for listener in self.listeners)
        self.announce(f"{self.routes}\nlistening on {urls} and reloading what changes")

    def _on_end(self, version: Version, exit_code: int) -> None:
        why = str(version.failure) if version.failure else f"the process {end_in_words(exit_code)}"
        if version is self.next and not self._over.is_set():
            self.next = None
            if version.failure and not version.folders and not self.listeners:  # it is not the code that is wrong
                self._fail(version.failure)
            else:
                log.error("%s\n%s", why, "the last version serves on" if self.serving else "waiting for a change")
        elif version is self.serving:
            self.serving = None
            if not self._over.is_set():
                log.error("%s; waiting for a change, and who asks waits too", why)

    # Changes

    def _watched(self) -> set[str]:
        """The folders that are there, of those that the living versions have told; if none lives, the last ones."""
        told = {folder for version in self._lives for folder in version.folders}
        self._told = told or self._told
        return {folder for folder in self._told if os.path.isdir(folder)}

    async def _watch(self) -> None:
        """Start the next version at each change, by whatever way the system lets us see one."""
        while True:
            await self._elsewhere.wait()
            self._elsewhere = asyncio.Event()
            if not (watched := self._watched()):  # nobody would say that one of them is there again
                await asyncio.sleep(LOOK_AGAIN / 1000)
                self._elsewhere.set()
                continue
            self._looking = watched
            try:
                await (self._poll() if self._polls else self._start_at_changes(watched))
            except FileNotFoundError:  # a folder was removed in this moment
                await asyncio.sleep(LOOK_AGAIN / 1000)
                self._elsewhere.set()
            except (OSError, RuntimeError) as error:  # watchfiles has a RuntimeError of its own for some
                log.warning(CANNOT_WATCH, error, POLL_PAUSE)
                self._polls = True
                self._elsewhere.set()

    async def _start_at_changes(self, watched: set[str]) -> None:
        """Until other folders are to be watched. OSError or RuntimeError where the system refuses to watch these."""
        from watchfiles import PythonFilter, awatch

        is_python = PythonFilter()

        def is_code(change: Any, path: str) -> bool:
            if change.name == "deleted":  # a folder that is made again is another, and is to be watched anew
                self._looking.discard(path)
            return is_python(change, path)

        changes = awatch(
            *watched,
            watch_filter=is_code,
            stop_event=self._elsewhere,
            recursive=False,
            rust_timeout=LOOK_AGAIN,
            yield_on_timeout=True,
        )
        async for each in changes:
            if paths := {path for _, path in each} or self._come_again() or self._changed():
                await self._start_for(paths)

    async def _start_for(self, changed: Iterable[str]) -> None:
        names = sorted({Path(path).name for path in changed})
        log.info("%s changed; starting the new version", ", ".join(names))
        await self._start()

    async def _poll(self) -> None:
        """As `_start_at_changes`, by looking. Not by watchfiles: it misses the second of two edits in one second."""
        while not self._elsewhere.is_set():
            await asyncio.sleep(POLL_PAUSE)
            if changed := self._changed() or self._come_again():
                self._looking &= self._watched()
                await self._start_for(changed)

    def _changed(self) -> set[str]:
        """Files that are not as they were before the last version was started: no watcher reports a change that was
        made while another watcher took its place."""
        changed = self._seen ^ _states(self._looking)
        return {path for path, _ in changed if os.path.dirname(path) in self._looking}

    def _come_again(self) -> set[str]:
        """Folders that were gone and are there again; from now on they are watched anew."""
        folders = self._watched() - self._looking
        if folders:
            self._elsewhere.set()
        return folders


# In a server process


def link_to_reloader() -> Link:
    """The link of a server process that a reloader has started; its children do not find it."""
    link = Link(socket.socket(fileno=int(os.environ.pop(RELOADER))))
    link.socket.set_inheritable(False)
    exit_with_parent(link.socket, True)
    return link


def telling_folders(link: Link, load: Callable[[], Service]) -> Service:
    """What `load` returns or raises. The reloader is told what to watch, whichever it is."""
    try:
        service = load()
    except BaseException as error:
        link.tell(folders=folders(error))
        raise
    link.tell(folders=folders())
    return service


def folders(error: BaseException | None = None) -> list[str]:
    """The folders of all modules of the author's, and of the files that an error has come by."""
    modules = [module for module in list(sys.modules.values()) if _is_there(getattr(module, "__file__", None))]
    packages = [path for module in modules for path in getattr(module, "__path__", ())]
    files = [*(module.__file__ for module in modules), *filter(_is_there, _files_of(error))]
    below = [folder for package in packages for folder, _, _ in os.walk(package) if "__pycache__" not in folder]
    return sorted({*below, *(str(Path(str(file)).resolve().parent) for file in files)})


def _is_there(file: str | None) -> bool:
    return file is not None and is_authors(file) and os.path.exists(file)


def _files_of(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename:
            yield error.filename
        yield from (frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__))
        error = error.__cause__ or error.__context__
