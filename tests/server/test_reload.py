"""reload.py: the code of a running service changes, and versions fail in every way."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from commands import Served, command, failed, served, tinysvc
from system import PROC, descendants, wait_until, workers_below
from tinysvc.core.settings import Settings
from tinysvc.server.reload import Reloader, Version

SERVICE = """
import os, pathlib
import words
from tinysvc import cpu_route, io_resource, io_route

VERSION = 1

@io_resource
async def opened():
    yield f"opened by {VERSION}"
    pathlib.Path(f"closed-{VERSION}").touch()

@io_route("/")
async def root(opened) -> list:
    return [VERSION, words.WORD, opened, os.getpid()]

@io_route("/end")
async def end() -> None:
    os._exit(7)

@cpu_route("/worker")
def worker() -> list:
    return [VERSION, os.getpid()]
"""

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "words.py").write_text("WORD = 'one'\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    """As editors do: the file is whole at any time."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def edit(folder: Path, before: str, after: str) -> None:
    path = folder / "service.py"
    assert before in path.read_text()
    write(path, path.read_text().replace(before, after))


@contextmanager
def reloading(folder: Path, *arguments: str) -> Iterator[Served]:
    with served(*tinysvc("service.py", "--reload", *arguments), cwd=folder) as server:
        yield server
        server.process.terminate()
        assert server.process.wait(20) == 0


def until_version(server: Served, version: object) -> list[object]:
    found: list[object] = []

    def serves() -> bool:
        found[:] = server.get("/").json()
        return found[0] == version

    wait_until(serves, f"version {version} serves")
    return found


def wait_for_line(server: Served, text: str) -> None:
    """Read the output of the command until this text appears."""
    assert server.process.stderr is not None
    lines = []
    for line in server.process.stderr:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"it did not say {text!r}, but: {''.join(lines)}")


def test_change_is_served_without_a_refused_connection(folder: Path) -> None:
    answers: list[object] = []
    stop = threading.Event()

    def ask(url: str) -> None:
        while not stop.is_set():
            answers.append(httpx.get(url, timeout=20).json()[0])  # each with a connection of its own

    with reloading(folder) as server:
        pid = until_version(server, 1)[3]
        assert server.get("/worker").json()[0] == 1
        asker = threading.Thread(target=ask, args=(server.url,))
        asker.start()
        try:
            edit(folder, "VERSION = 1", "VERSION = 2")
            wait_for_line(server, "service.py changed; starting the new version")
            _, _, opened, new_pid = until_version(server, 2)
            wait_until(lambda: answers and answers[-1] == 2, "it has been asked")
        finally:
            stop.set()
            asker.join()
        assert answers == sorted(answers, key=str)
        assert opened == "opened by 2"
        assert new_pid != pid
        wait_until((folder / "closed-1").exists, "the old version has closed its resources")
        assert server.get("/worker").json()[0] == 2
        wait_until(lambda: len(workers_below(server.pid)) <= 2, "the old workers are gone")
        server.process.send_signal(signal.SIGHUP)  # certificates would be read again
        wait_for_line(server, "SIGHUP reloads the certificates; this server has none")
        assert until_version(server, 2)[3] == new_pid


def test_change_of_an_imported_module_is_served(folder: Path) -> None:
    with reloading(folder) as server:
        write(folder / "words.py", "WORD = 'two'\n")
        wait_until(lambda: server.get("/").json()[1] == "two", "it is served")


def test_new_files_in_packages_are_watched(folder: Path) -> None:
    package = folder / "package"
    (package / "inner").mkdir(parents=True)
    (package / "inner" / "more.py").write_text("VALUE = 'old'\n")
    edit(folder, "VERSION = 1", "import package.inner.more\nVERSION = package.inner.more.VALUE")
    with reloading(folder) as server:
        until_version(server, "old")
        write(package / "inner" / "more.py", "VALUE = 'new'\n")
        until_version(server, "new")


def test_folder_that_reappears_is_watched_again(folder: Path) -> None:
    """As if a branch without the folder is checked out for a while."""
    services = folder / "services"
    services.mkdir()
    write(services / "one.py", SERVICE)
    with served(*tinysvc("services", "--reload"), cwd=folder, PYTHONPATH=str(folder)) as server:
        shutil.rmtree(services)
        wait_for_line(server, "the last version keeps serving")
        assert server.get("/one").json()[0] == 1
        services.mkdir()
        write(services / "one.py", SERVICE.replace("VERSION = 1", "VERSION = 2"))
        wait_until(lambda: server.get("/one").json()[0] == 2, "version 2 serves")
        write(services / "one.py", SERVICE.replace("VERSION = 1", "VERSION = 3"))
        wait_until(lambda: server.get("/one").json()[0] == 3, "version 3 serves")
        server.process.terminate()
        assert server.process.wait(20) == 0


def test_many_folders_and_routes(folder: Path) -> None:
    """A server process reports each in one long line."""
    for number in range(1200):
        (folder / "package" / f"folder-with-a-longish-name-{number:05}").mkdir(parents=True)
    (folder / "package" / "__init__.py").touch()
    more = """
import package
for n in range(900):
    @io_route(f'/a/route/with/a/longish/path/so/that/it/adds/up/{n}')
    async def f() -> None: ...
    globals()[f'f{n}'] = f
    del f
"""
    write(folder / "service.py", SERVICE + more)
    with reloading(folder, "--workers", "2") as server:
        until_version(server, 1)
        assert server.get("/readyz").json()["pools"]["default"]["workers"] == 2  # all of them in one process


def test_edits_within_one_second_of_one_size(folder: Path) -> None:
    with reloading(folder) as server:
        for version in (2, 3, 4):
            edit(folder, f"VERSION = {version - 1}", f"VERSION = {version}")
            until_version(server, version)


FAULTS = {
    "VERSION = = 2": "SyntaxError",
    "VERSION = 1 / 0": "ZeroDivisionError",
    "os._exit(9)\nVERSION = 2": "the process ended with status 9",
    "os.kill(os.getpid(), 9)\nVERSION = 2": "the process was ended by SIGKILL",
    "VERSION = 2\n@io_route('/x')\nasync def odd(nothing: object()) -> None: ...": "odd",
    "VERSION = 2\n@io_resource\nasync def bad():\n    raise OSError('no model')\n    yield\n"
    "@io_route('/bad')\nasync def uses(bad) -> None: ...": "no model",
}


def test_last_version_serves_while_the_next_one_cannot_start(folder: Path) -> None:
    with reloading(folder) as server:
        right = (folder / "service.py").read_text()
        for fault, said in FAULTS.items():
            write(folder / "service.py", right.replace("VERSION = 1", fault))
            wait_for_line(server, said)
            wait_for_line(server, "the last version keeps serving")
            assert server.get("/").json()[0] == 1
        write(folder / "service.py", right.replace("VERSION = 1", "VERSION = 3"))
        until_version(server, 3)


def test_change_while_another_folder_begins_to_be_watched_is_seen(folder: Path) -> None:
    right = (folder / "service.py").read_text()
    with reloading(folder) as server:
        for number in range(2, 6):
            (folder / str(number)).mkdir()
            (folder / str(number) / f"more{number}.py").touch()
            fault = f"import sys; sys.path.append('{number}'); import more{number}; fault{number}"
            write(folder / "service.py", right.replace("VERSION = 1", fault))
            wait_for_line(server, f"name 'fault{number}' is not defined")
            wait_for_line(server, "the last version keeps serving")
        write(folder / "service.py", right.replace("VERSION = 1", "VERSION = 6"))
        until_version(server, 6)


@pytest.mark.asyncio
async def test_change_between_two_watchers_starts_a_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reloader = Reloader(Settings(), print, bool)
    started = asyncio.Queue[list[str]]()

    async def start_for(changed: Iterable[str]) -> None:
        started.put_nowait(sorted(changed))

    monkeypatch.setattr(reloader, "_start_for", start_for)
    reloader._on_report(Mock(Version), {"folders": [str(folder)]})
    reloader._folders_changed.clear()
    reloader._watched = {str(folder)}
    edit(folder, "VERSION = 1", "VERSION = 2")
    watching = asyncio.create_task(reloader._start_at_changes({str(folder)}))
    async with asyncio.timeout(20):
        assert await started.get() == [str(folder / "service.py")]
    reloader._folders_changed.set()
    await watching


def test_first_version_with_an_error_waits_for_a_change(folder: Path) -> None:
    edit(folder, "VERSION = 1", "VERSION = = 1")
    with command(*tinysvc("service.py", "--reload"), cwd=folder) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        said = ""
        while "waiting for a change" not in said:
            said += process.stderr.readline()
        assert 'service.py", line 6' in said
        edit(folder, "VERSION = = 1", "VERSION = 1")
        while not (line := process.stdout.readline()).startswith("listening on "):
            assert line
        assert httpx.get(line.split()[2]).json()[0] == 1
        process.terminate()
        assert process.wait(20) == 0


def test_wrong_target_or_address_ends_the_reloader(folder: Path) -> None:
    status, errors = failed(*tinysvc("nothing.py", "--reload"), cwd=folder)
    assert (status, errors) == (2, f"tinysvc: there is no file or folder 'nothing.py' in {folder}\n")
    status, errors = failed(*tinysvc("service.py", "--reload", "--unix", "/no/such/folder"), cwd=folder)
    assert status == 3
    assert "cannot listen on the Unix socket" in errors


def test_requests_wait_while_no_version_serves(folder: Path) -> None:
    with reloading(folder) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            server.get("/end")
        wait_for_line(server, "the process ended with status 7; waiting for a change; requests wait, too")
        asker = threading.Thread(target=lambda: answers.append(server.get("/").json()[0]))
        answers: list[object] = []
        asker.start()
        edit(folder, "VERSION = 1", "VERSION = 2")
        asker.join()
        assert answers == [2]


def test_change_while_a_version_starts_is_served(folder: Path) -> None:
    with reloading(folder) as server:
        edit(folder, "VERSION = 1", "pathlib.Path('begun').touch(); import time; time.sleep(3600)\nVERSION = 2")
        wait_until((folder / "begun").exists, "it starts")
        edit(folder, "import time; time.sleep(3600)\nVERSION = 2", "VERSION = 3")
        until_version(server, 3)


def test_version_ready_when_it_is_replaced_is_discarded(folder: Path) -> None:
    """The reloader sleeps while both happen: the version that serves must not be ended for one that is killed."""
    waits = """VERSION = 2
@io_resource
async def slow():
    import asyncio
    pathlib.Path('going').touch()
    while not os.path.exists('go'):
        await asyncio.sleep(0.01)
    yield
    pathlib.Path('gone').touch()
@io_route('/slow')
async def waits(slow) -> None:
    pass
"""
    with reloading(folder) as server:
        until_version(server, 1)
        edit(folder, "VERSION = 1", waits)
        wait_until((folder / "going").exists, "it starts")
        os.kill(server.pid, signal.SIGSTOP)
        (folder / "go").touch()
        edit(folder, "VERSION = 2", "VERSION = = 3")
        time.sleep(1)  # both are on their way; if not, nothing is tested, and nothing fails
        os.kill(server.pid, signal.SIGCONT)
        wait_for_line(server, "the last version keeps serving")
        assert server.get("/").json()[0] in (1, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_reloader_ends_while_a_version_starts(folder: Path, number: int) -> None:
    with served(*tinysvc("service.py", "--reload"), cwd=folder) as server:
        edit(folder, "VERSION = 1", "pathlib.Path('begun').touch(); import time; time.sleep(3600)\nVERSION = 2")
        wait_until((folder / "begun").exists, "it starts")
        below = descendants(server.pid)
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
        wait_until(lambda: not [pid for pid in below if (PROC / str(pid)).exists()], "all have ended")
        assert (folder / "closed-1").exists()


@pytest.mark.skipif(not PROC.exists(), reason="the kernel tells of a parent's death on Linux only")
def test_versions_end_with_a_killed_reloader(folder: Path) -> None:
    with served(*tinysvc("service.py", "--reload"), cwd=folder) as server:
        edit(folder, "VERSION = 1", "pathlib.Path('begun').touch(); import time; time.sleep(3600)\nVERSION = 2")
        wait_until((folder / "begun").exists, "it starts")
        below = descendants(server.pid)
        assert len(below) >= 2
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not [pid for pid in below if (PROC / str(pid)).exists()], "all have ended")


def test_script_that_calls_run_is_reloaded(folder: Path) -> None:
    run = "\nif __name__ == '__main__':\n    import tinysvc\n    tinysvc.run(__name__, port=0, reload=True)\n"
    write(folder / "service.py", SERVICE + run)
    with served("service.py", cwd=folder) as server:
        edit(folder, "VERSION = 1", "VERSION = 2")
        until_version(server, 2)
        server.process.terminate()
        assert server.process.wait(20) == 0


def test_unix_socket_stays_open_between_versions(folder: Path) -> None:
    with reloading(folder, "--unix", "s") as server:
        assert server.lines[-1] == "listening on unix:s and reloading when its code changes"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "s")), timeout=20) as client:
            edit(folder, "VERSION = 1", "VERSION = 2")
            wait_until(lambda: client.get("http://x/", headers={"connection": "close"}).json()[0] == 2, "it serves")
    assert not (folder / "s").exists()


REFUSING = """
import sys
folder = sys.path.pop(0)
del sys.modules["watchfiles"]
import watchfiles
sys.path.insert(0, folder)
watch = watchfiles.awatch
calls = 0

async def awatch(*paths, **options):
    global calls
    calls += 1
    if calls > {free}:
        raise {error}
    async for changes in watch(*paths, **options):
        yield changes

watchfiles.awatch = awatch
"""


@pytest.mark.parametrize("error", ["OSError(28, 'no watch left')", "RuntimeError('Too many open files')"])
@pytest.mark.parametrize("free", [0, 1])
def test_files_are_polled_without_reports_of_the_system(folder: Path, error: str, free: int) -> None:
    """From the beginning, or when a new folder is to be watched."""
    (folder / "watchfiles.py").write_text(REFUSING.format(error=error, free=free))
    (folder / "more").mkdir()
    (folder / "more" / "__init__.py").touch()
    with reloading(folder) as server:
        until_version(server, 1)
        if free:
            edit(folder, "VERSION = 1", "import more\nVERSION = 2")
            until_version(server, 2)
        wait_for_line(server, "WATCHFILES_FORCE_POLLING")
        for version in range(free + 2, free + 5):
            edit(folder, f"VERSION = {version - 1}", f"VERSION = {version}")
            until_version(server, version)


def test_missing_watchfiles_is_named(folder: Path) -> None:
    (folder / "watchfiles.py").write_text("raise ImportError\n")
    status, errors = failed(*tinysvc("service.py", "--reload"), cwd=folder)
    assert status == 3
    assert errors == "tinysvc: --reload needs the library watchfiles: pip install 'tinysvc[reload]'\n"


def test_frozen_program_does_not_start_itself(folder: Path) -> None:
    run = "import sys\nimport tinysvc\nsys.frozen = True\ntinysvc.run(__name__, reload=True)\n"
    write(folder / "service.py", SERVICE + run)
    status, errors = failed("service.py", cwd=folder)
    assert status == 3
    assert errors.startswith("tinysvc: --reload needs new Python processes")
