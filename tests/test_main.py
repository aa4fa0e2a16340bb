"""__main__.py and server.py as a user meets them: a command, its output, its exit status, its end."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from commands import HELLO, Served, command, failed, served, tinysvc
from paths import SUPPORT
from system import descendants, wait_until, workers_below

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


# What is served


def test_a_file(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder) as server:
        assert server.lines[:-1] == ["GET  /     io   hello.root", "GET  /pid  cpu  hello.pid"]
        assert re.fullmatch(r"listening on http://127\.0\.0\.1:[0-9]+", server.lines[-1])
        assert server.get("/").json() == {"from": "hello"}
        assert server.get("/pid").json() in workers_below(server.pid)


def test_a_module_in_a_package(folder: Path) -> None:
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("WORD = 'helped'\n")
    (package / "module.py").write_text(
        HELLO
        + "\nfrom .helper import WORD\nfrom tinysvc import Service\n"
        + "@cpu_route('/word')\ndef word() -> str:\n    return WORD\n"
        + "other = Service(word, prefix='/other')\n"
    )
    for target in ("package.module", "package/module.py"):
        with served(*tinysvc(target), cwd=folder) as server:
            assert server.get("/word").text == "helped"
            assert server.get("/").json() == {"from": "package.module"}
    with served(*tinysvc("package.module:other"), cwd=folder) as server:
        assert server.get("/other/word").text == "helped"
        assert server.get("/").status_code == 404


def test_a_folder_with_an_index(folder: Path) -> None:
    (folder / "second.py").write_text(HELLO)
    (folder / "_private.py").write_text("raise RuntimeError\n")
    (folder / "helper.py").write_text("X = 1\n")
    with served(*tinysvc("."), cwd=folder) as server:
        assert server.get("/hello").json() == {"from": "hello"}
        assert server.get("/second").json() == {"from": "second"}
        assert server.get("/second/pid").json() in workers_below(server.pid)
        assert server.get("/").headers["location"] == "docs"
        assert "/second/pid" in server.get("/openapi.json").json()["paths"]


def test_a_script_run_as_main(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(
        HELLO + "\nif __name__ == '__main__':\n    import tinysvc\n    tinysvc.run(__name__, port=0, cpu_workers=1)\n"
    )
    with served("script.py", cwd=folder) as server:
        assert server.get("/").json() == {"from": "__main__"}
        assert server.get("/pid").json() in workers_below(server.pid)


def test_a_script_without_the_guard_starts_no_storm(folder: Path) -> None:
    (folder / "script.py").write_text(HELLO + "\nimport tinysvc\ntinysvc.run(__name__, port=0, cpu_workers=1)\n")
    status, errors = failed("script.py", cwd=folder)
    assert status == 3
    assert 'write that call under: if __name__ == "__main__":' in errors
    assert "script.py" in errors
    (folder / "pool.py").write_text(
        "from tinysvc import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(1) as pool:\n    pool.submit(abs, 1).result()\n"
    )
    status, errors = failed("pool.py", cwd=folder)
    assert status == 1
    assert 'write that call under: if __name__ == "__main__":' in errors


def test_a_module_global_called_service(folder: Path) -> None:
    (folder / "made.py").write_text(HELLO + "\nfrom tinysvc import Service\nservice = Service(pid, prefix='/made')\n")
    with served(*tinysvc("made.py"), cwd=folder) as server:
        assert server.get("/made/pid").status_code == 200
        assert server.get("/").status_code == 404


def test_a_unix_socket(folder: Path) -> None:
    path = folder / "socket"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with served(*tinysvc("hello.py", "--unix", str(path)), cwd=folder) as server:
        assert server.lines[-1] == f"listening on unix:{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x", timeout=20) as client:
            assert client.get("/").json() == {"from": "hello"}
        status, errors = failed(*tinysvc("hello.py", "--unix", str(path)), cwd=folder)
        assert status == 3
        assert "another process does" in errors
        server.process.terminate()
        assert server.process.wait(30) == 0
    assert not path.exists()


def test_options_from_variables_flags_and_code(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder, TINYSVC_CPU_WORKERS="1") as server:
        assert len(workers_below(server.pid)) == 2  # the flag is stronger
    with served("-m", "tinysvc", "hello.py", cwd=folder, TINYSVC_CPU_WORKERS="1", TINYSVC_PORT="0") as server:
        assert len(workers_below(server.pid)) == 1


def test_pools_from_flags_variables_and_code(folder: Path) -> None:
    (folder / "pooled.py").write_text(
        HELLO + "\nfrom tinysvc import Pool, Service\n@cpu_route('/train', pool='training')\ndef train() -> None: ...\n"
        "service = Service(pid, train, pools={'training': Pool(workers=3)})\n"
    )

    def workers(*flags: str, **variables: str) -> dict[str, int]:
        with served(*tinysvc("pooled.py", *flags), cwd=folder, **variables) as server:
            pools = server.get("/readyz").json()["pools"]
            assert len(workers_below(server.pid)) == sum(pool["workers"] for pool in pools.values())
            return {name: pool["workers"] for name, pool in pools.items()}

    assert workers() == {"default": 2, "training": 3}
    assert workers(TINYSVC_POOLS="training:workers=1,queue_size=2") == {"default": 2, "training": 1}
    assert workers("--pools", "training:workers=2", TINYSVC_POOLS="training:workers=1") == {"default": 2, "training": 2}
    assert workers("--pools", "default:workers=1") == {"default": 1, "training": 3}


# What goes wrong


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("nowhere.py", 2, r"there is no file or folder 'nowhere\.py' in "),
        ("no.such.module", 2, r"there is no module 'no' \(looked in "),
        ("hello:nothing", 2, "hello has no Service called 'nothing'; leave out ':nothing' to serve the module's own"),
        ("named.py:nothing", 2, r"named has no Service called 'nothing'; name one of those that it has \(app\)"),
        ("empty", 2, "no file in the folder empty has a function with @io_route or @cpu_route"),
        ("data.txt", 2, "cannot be imported; a service is a .py file"),
        ("plain.py", 3, "the module plain .* has no function with @io_route or @cpu_route"),
        ("broken.py", 3, r"importing .*broken\.py failed:\nTraceback.*\n.*broken\.py\", line 2.*ZeroDivisionError"),
        ("typo.py", 3, r"SyntaxError"),
        ("my.service.py", 2, "cannot be imported"),
        ("closure.py", 3, r"<lambda> \(.*closure\.py:4\): is a lambda, .*define it with def at the module's top level"),
        (
            "nomodel.py",
            3,
            r"a worker cannot start\nTraceback.*\n.*nomodel\.py\", line 5, in model.*\nOSError: no model",
        ),
        ("nodata.py", 3, r"the resource database cannot be opened:\nTraceback.*\nOSError: no database"),
        ("exits.py", 3, r"SystemExit: 4"),
        (
            "nopool.py",
            3,
            r"f \(.*nopool\.py:3\): there is no pool 'gpu'; there is: default; name one of these, or add ",
        ),
    ],
)
def test_a_mistake_is_one_readable_message(folder: Path, target: str, status: int, says: str) -> None:
    imports = "from tinysvc import cpu_resource, cpu_route, io_resource, io_route\n"
    (folder / "empty").mkdir()
    (folder / "data.txt").touch()
    (folder / "plain.py").write_text("x = 1\n")
    (folder / "broken.py").write_text("x = 1\n1 / 0\n")
    (folder / "typo.py").write_text("def f(:\n")
    (folder / "my.service.py").write_text("\n")
    (folder / "closure.py").write_text(imports + "\n\nh = cpu_route('/')(lambda: None)\n")
    (folder / "nomodel.py").write_text(
        imports + "\n@cpu_resource\ndef model():\n    raise OSError('no model')\n\n"
        "@cpu_route('/')\ndef f(model) -> None: ...\n"
    )
    (folder / "nodata.py").write_text(
        imports + "@io_resource\nasync def database():\n    raise OSError('no database')\n"
        "@io_route('/')\nasync def f(database) -> None: ...\n"
    )
    (folder / "named.py").write_text("from tinysvc import Service\napp = Service()\n")
    (folder / "exits.py").write_text("raise SystemExit(4)\n")
    (folder / "nopool.py").write_text(imports + "\n@cpu_route('/', pool='gpu')\ndef f() -> None: ...\n")
    got, errors = failed(*tinysvc(target), cwd=folder)
    assert re.search("tinysvc: .*" + says, errors, re.DOTALL), errors
    assert got == status
    assert "src/tinysvc" not in errors


def test_a_used_port_is_named_and_the_other_server_unharmed(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder) as server:
        port = server.url.rpartition(":")[2]
        status, errors = failed("-m", "tinysvc", "hello.py", "--port", port, cwd=folder)
        assert status == 3
        assert errors == (
            f"tinysvc: cannot listen on 127.0.0.1:{port}: another process does; "
            "stop it or choose --port (0 takes a free one)\n"
        )
        assert server.get("/").status_code == 200


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TINYSVC_HOTS": "::1"}, "TINYSVC_HOTS is no variable of tinysvc; did you mean TINYSVC_HOST?"),
        ({"TINYSVC_PORT": "many"}, "TINYSVC_PORT takes a whole number, not 'many'"),
        ({"TINYSVC_QUEUE_SIZE": "-1"}, "queue_size must be at least 0, not -1 (TINYSVC_QUEUE_SIZE)"),
        ({"TINYSVC_POOLS": "gpu:worker=1"}, "'worker' is no option of the pool gpu; did you mean workers?"),
    ],
)
def test_a_wrong_variable_is_named(folder: Path, variables: dict[str, str], says: str) -> None:
    assert failed("-m", "tinysvc", "hello.py", cwd=folder, **variables) == (2, f"tinysvc: {says}\n")


UNITS = "sizes are bytes, times are seconds"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--porrt", "1"], "--porrt is no option; did you mean --port?"),
        (["--cpu-worker=2"], "--cpu-worker is no option; did you mean --cpu-workers?"),
        (["--rotes"], "--rotes is no option; did you mean --routes?"),
        (["--max-body-size=1MiB"], f"argument --max-body-size: takes a whole number, not '1MiB'; {UNITS}"),
        (["--port", "x"], "argument --port: takes a whole number, not 'x'"),
        (["other.py"], "other.py is one TARGET too many; a folder serves all that is in it"),
    ],
)
def test_a_wrong_option_is_named(folder: Path, words: list[str], says: str) -> None:
    usage = "usage: python -m tinysvc [OPTION ...] TARGET\n"
    assert failed("-m", "tinysvc", "hello.py", *words, cwd=folder) == (2, f"{usage}tinysvc: error: {says}\n")


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--routes", r"GET +/ +io +hello\.root"),
        ("--openapi", r'"operationId": "root"'),
        ("--settings", r"port +8000 +default\n(.*\n)*queue_size +3 +TINYSVC_QUEUE_SIZE"),
    ],
)
def test_what_is_shown_and_not_served(folder: Path, flag: str, says: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "tinysvc", "hello.py", flag],
        cwd=folder,
        env={**os.environ, "TINYSVC_QUEUE_SIZE": "3"},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert re.search(says, shown.stdout)
    assert shown.stderr == ""
    assert "\x1b" not in shown.stdout  # it is no terminal


def test_what_cannot_be_shown_is_said(folder: Path) -> None:
    assert failed("-m", "tinysvc", "nothing.py", "--routes", cwd=folder)[0] == 2


def test_help_and_version(folder: Path) -> None:
    out = subprocess.run([sys.executable, "-m", "tinysvc", "--help"], capture_output=True, text=True, check=True).stdout
    assert "python -m tinysvc examples" in out
    assert "--max-body-size" in out
    out = subprocess.run(
        [sys.executable, "-m", "tinysvc", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert re.fullmatch(r"tinysvc [0-9.]+\n", out)


def test_what_a_handler_prints_is_seen_at_once(folder: Path) -> None:
    (folder / "printing.py").write_text(HELLO + "\n@io_route('/print')\nasync def p() -> None:\n    print('printed')\n")
    with served(*tinysvc("printing.py"), cwd=folder, PYTHONUNBUFFERED="") as server:
        server.get("/print")
        assert server.process.stdout is not None
        assert server.process.stdout.readline() == "printed\n"


# How it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(folder: Path, number: signal.Signals) -> None:
    with served(*tinysvc(str(SUPPORT / "faulty.py")), cwd=folder) as server, httpx.Client(timeout=20) as client:
        started, go = folder / "started", folder / "go"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as busy:
            target = f"/work?started={started}&go={go}&done={folder / 'done'}"
            busy.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            wait_until(started.exists, "the job runs")
            client.get(server.url + "/livez")  # an idle keep-alive connection must not hold it up
            server.process.send_signal(number)

            def refuses() -> bool:
                try:
                    socket.create_connection((host, int(port)), 20).close()
                except (ConnectionRefusedError, ConnectionResetError):  # reset: the listener closed while we waited
                    return True
                return False

            wait_until(refuses, "it listens no more")
            go.touch()
            answer = b""
            while piece := busy.recv(4096):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 204 ")
            assert b"connection: close" in answer
        assert server.process.wait(30) == 0


DEAF = """
import asyncio
import signal
from tinysvc import io_resource, io_route

def register(way: str) -> None:
    loop = asyncio.get_running_loop()
    if way.startswith("SIG_"):
        signal.signal(signal.SIGTERM, getattr(signal, way))
    else:
        loop.add_signal_handler(signal.SIGTERM, print, "heard", "too")
    if way == "removed":
        assert loop.remove_signal_handler(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert loop.remove_signal_handler(signal.SIGUSR1)

@io_resource
async def library():
    if PLACE == "resource":
        register(WAY)
    yield "open"
    print("closed")

@io_route("/")
async def root(library: str) -> None:
    if PLACE == "handler":
        register(WAY)
"""


@pytest.mark.parametrize(
    ("place", "way"),
    [
        ("resource", "added"),
        ("resource", "removed"),
        ("resource", "SIG_IGN"),
        ("resource", "SIG_DFL"),
        ("handler", "added"),
        ("handler", "removed"),
    ],
)
def test_sigterm_drains_although_a_library_registers_for_it(folder: Path, place: str, way: str) -> None:
    (folder / "deaf.py").write_text(f"PLACE, WAY = {place!r}, {way!r}\n{DEAF}")
    with served(*tinysvc("deaf.py"), cwd=folder) as server:
        assert server.get("/").status_code == 204
        server.process.terminate()
        output, errors = server.process.communicate(timeout=30)
    assert server.process.returncode == 0
    assert "closed\n" in output
    assert ("heard too\n" in output) == (way == "added")
    assert ("a resource gave SIGTERM to SIG_IGN or SIG_DFL" in errors) == way.startswith("SIG_")


CLOSING = """
from tinysvc import io_resource, io_route

@io_resource
async def database():
    yield "open"
    raise OSError("not to be closed")

@io_route("/")
async def root(database: str) -> str:
    return database
"""


@pytest.mark.parametrize("way", ["--no-reload", "--workers=2", "--reload"])
def test_a_resource_that_cannot_be_closed_is_told_from_the_author_s_line_on(folder: Path, way: str) -> None:
    (folder / "closing.py").write_text(CLOSING)
    with served(*tinysvc("closing.py", way), cwd=folder) as server:
        server.process.terminate()
        _, errors = server.process.communicate(timeout=30)
        assert server.process.returncode == 0
    said = (
        "the resource database cannot be closed:\n    Traceback (most recent call last):\n"
        f'      File "{folder / "closing.py"}", line 7, in database\n        raise OSError("not to be closed")\n'
    )
    assert said in errors
    assert "/tinysvc/" not in errors


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    with served(*tinysvc(str(SUPPORT / "faulty.py"), "--shutdown-timeout", "3600"), cwd=folder) as server:
        started = folder / "started"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as busy:
            target = f"/work?started={started}&go=/nowhere&done=/nowhere"
            busy.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            wait_until(started.exists, "the job runs")
            family = set(descendants(server.pid))
            with socket.create_connection((host, int(port)), 20) as idle:
                server.process.terminate()
                assert idle.recv(1) == b""  # it has begun to drain
            assert server.process.stderr is not None
            assert any("still at work: 1; they have 3600 s" in line for line in server.process.stderr)
            server.process.terminate()
            assert server.process.wait(30) == 128 + signal.SIGTERM
        wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in family), "nothing is left", 2)


def test_kill_9_leaves_nothing(folder: Path) -> None:
    with served(*tinysvc(str(SUPPORT / "faulty.py")), cwd=folder) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as busy:
            busy.sendall(b"GET /wait?started=%b&go=/nowhere HTTP/1.1\r\nHost: x\r\n\r\n" % bytes(folder / "started"))
            wait_until((folder / "started").exists, "the job runs")
            family = set(descendants(server.pid))
            assert len(family) == 3
            server.process.kill()
            wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in family), "all are gone", 2)


def test_workers_do_not_hold_the_listening_socket(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder) as server:
        port = int(server.url.rpartition(":")[2])
        inodes = {
            line.split()[9]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        }
        assert inodes
        for pid in descendants(server.pid):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                assert not any(f"socket:[{inode}]" == os.readlink(entry) for inode in inodes)


def test_a_signal_while_starting_ends_it(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import time, pathlib\nfrom tinysvc import cpu_resource, cpu_route\n"
        "@cpu_resource\ndef model():\n    pathlib.Path('opening').touch()\n    time.sleep(3600)\n"
        "@cpu_route('/')\ndef f(model) -> None: ...\n"
    )
    with command(*tinysvc("slow.py"), cwd=folder) as process:
        wait_until((folder / "opening").exists, "the worker starts")
        process.terminate()
        assert process.wait(10) == 0


# What a SIGHUP means


def test_a_hangup_without_certificates_changes_nothing(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder) as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.process.stderr
        assert next(iter(server.process.stderr)) == (
            "INFO tinysvc: SIGHUP reads the certificates again; there are none, so nothing was done\n"
        )
        assert server.get("/").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("before", ["SIG_DFL", "SIG_IGN"])
def test_the_terminal_closes(folder: Path, workers: str, before: str) -> None:
    """That ends the server in order; not under nohup, which ignores SIGHUP before us."""
    main = (
        f"import os, runpy, signal, sys; signal.signal(signal.SIGHUP, signal.{before}); "
        "os.login_tty(int(sys.argv.pop(1))); sys.stdout = open('said', 'w'); "
    )
    (folder / "said").touch()
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-c", main + "runpy.run_module('tinysvc', run_name='__main__')", str(theirs)]
    process = subprocess.Popen(
        [*arguments, *tinysvc("hello.py", "--workers", workers)[2:]], cwd=folder, pass_fds=[theirs]
    )
    try:
        os.close(theirs)
        listening = re.compile("listening on (http:[^ \n]*)")
        wait_until(lambda: listening.search((folder / "said").read_text()), "it listens")
        os.kill(process.pid, signal.SIGHUP)  # while the terminal is there, it is no reason to end
        url = listening.findall((folder / "said").read_text())[0]
        assert httpx.get(url, timeout=20).status_code == 200
        os.close(ours)
        if before == "SIG_IGN":
            assert httpx.get(url, timeout=20).status_code == 200
            process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


SIGNALLED = """
import asyncio, pathlib, time
from collections.abc import AsyncIterator, Iterator
from tinysvc import Event, cpu_route, io_route

@cpu_route("/slow", methods=["POST"])
def slow() -> str:
    pathlib.Path("begun").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return "done"

@io_route("/events")
async def events() -> AsyncIterator[Event]:
    while True:
        yield Event("tick")
        await asyncio.sleep(3600)

@io_route("/lines")
async def lines() -> AsyncIterator[dict]:
    while True:
        yield {"tick": 1}
        await asyncio.sleep(3600)

def forever() -> None:
    pathlib.Path("begun").touch()
    while True:
        time.sleep(0.01)

async def forever_on_the_loop() -> None:
    pathlib.Path("begun").touch()
    await asyncio.sleep(3600)

@io_route("/no-events")
async def no_events() -> AsyncIterator[Event]:
    await forever_on_the_loop()
    yield Event("tick")

@io_route("/no-lines")
async def no_lines():
    await forever_on_the_loop()
    yield {"tick": 1}

@io_route("/no-lines-of-a-thread")
def no_lines_of_a_thread() -> Iterator[dict]:
    forever()
    yield {"tick": 1}

@io_route("/one-line-of-a-thread")
def one_line_of_a_thread() -> Iterator[dict]:
    yield {"tick": 1}
    forever()

@cpu_route("/no-cpu-lines")
def no_cpu_lines() -> Iterator[dict]:
    forever()
    yield {"tick": 1}

@cpu_route("/no-cpu-events")
def no_cpu_events() -> Iterator[Event]:
    forever()
    yield Event("tick")

@cpu_route("/cpu-lines")
def cpu_lines() -> Iterator[dict]:
    while True:
        yield {"tick": 1}
        time.sleep(3600)
"""


KINDS_OF_SERVICE = pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--reload",)], ids=" ".join)


def signal_all(server: Served, number: int) -> None:
    for pid in [*descendants(server.pid), server.pid]:
        with suppress(ProcessLookupError):  # a drain has begun: what is idle ends
            os.kill(pid, number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@KINDS_OF_SERVICE
def test_a_signal_to_every_process_drains_as_one_to_the_server_does(
    number: int, options: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(SIGNALLED)
    with (
        served(*tinysvc("service.py", *options), cwd=tmp_path) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        answer = threads.submit(httpx.post, server.url + "/slow", timeout=60)
        wait_until((tmp_path / "begun").exists, "the job runs")
        signal_all(server, number)
        (tmp_path / "go").touch()
        assert answer.result().text == "done"
        assert server.process.wait(30) == 0


@KINDS_OF_SERVICE
def test_hangup_to_every_process_ends_none_and_no_job(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SIGNALLED)
    with (
        served(*tinysvc("service.py", *options), cwd=tmp_path) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        answer = threads.submit(httpx.post, server.url + "/slow", timeout=60)
        wait_until((tmp_path / "begun").exists, "the job runs")
        family = descendants(server.pid)
        signal_all(server, signal.SIGHUP)
        assert server.process.stderr
        assert "SIGHUP reads the certificates again" in server.process.stderr.readline()
        (tmp_path / "go").touch()
        assert answer.result().text == "done"
        assert httpx.post(server.url + "/slow", timeout=60).text == "done"
        assert family.keys() <= descendants(server.pid).keys()
        server.process.terminate()
        assert {line.split()[0] for line in server.process.communicate(timeout=30)[1].splitlines()} <= {"INFO"}
        assert server.process.returncode == 0


@KINDS_OF_SERVICE
def test_stop_of_every_process_beyond_a_deadline_kills_no_job(options: tuple[str, ...], tmp_path: Path) -> None:
    """Running jobs and queued ones get the time that was left to them when they were stopped."""
    (tmp_path / "service.py").write_text(SIGNALLED)
    with (
        served(*tinysvc("service.py", "--cpu-timeout", "4", *options), cwd=tmp_path) as server,
        ThreadPoolExecutor(4) as threads,
    ):
        answers = [threads.submit(httpx.post, server.url + "/slow", timeout=60) for _ in range(4)]
        wait_until((tmp_path / "begun").exists, "a job runs")
        family = descendants(server.pid)
        signal_all(server, signal.SIGSTOP)
        time.sleep(5)  # longer than the deadlines: that is what is tested
        signal_all(server, signal.SIGCONT)
        time.sleep(0.5)  # whatever is late is killed by now
        (tmp_path / "go").touch()
        assert [answer.result().text for answer in answers] == ["done"] * 4
        assert family.keys() <= descendants(server.pid).keys()
        server.process.terminate()
        assert server.process.wait(30) == 0


PATIENT = """
if __name__ == "__main__":
    import tinysvc, tinysvc.server.reload, tinysvc.server.supervisor

    tinysvc.server.supervisor.LATE = tinysvc.server.reload.LATE = 0.2
    tinysvc.run(__name__, port=0, cpu_workers=2, shutdown_timeout=4, **OPTIONS)
"""


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"reload": True}], ids=str)
def test_stop_of_every_process_during_a_drain_cuts_nothing_off(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SIGNALLED + PATIENT.replace("OPTIONS", repr(options)))
    with served("service.py", cwd=tmp_path) as server, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(httpx.post, server.url + "/slow", timeout=60)
        wait_until((tmp_path / "begun").exists, "the job runs")
        server.process.terminate()
        address = server.url.removeprefix("http://").split(":")
        wait_until(lambda: refuses(address[0], int(address[1])), "it drains")
        signal_all(server, signal.SIGSTOP)
        time.sleep(5)  # longer than shutdown_timeout: that is what is tested
        signal_all(server, signal.SIGCONT)
        time.sleep(0.5)
        (tmp_path / "go").touch()
        assert answer.result().text == "done"
        assert server.process.wait(30) == 0


def refuses(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


@pytest.mark.parametrize("path", ["/events", "/lines", "/cpu-lines", "/one-line-of-a-thread"])
@pytest.mark.parametrize("options", [(), ("--compress",)], ids=["plain", "compressed"])
def test_a_drain_ends_endless_streams_in_order(path: str, options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SIGNALLED)
    long = ("--shutdown-timeout", "3600", *options)
    with (
        served(*tinysvc("service.py", *long), cwd=tmp_path) as server,
        httpx.stream("GET", server.url + path, timeout=30) as response,
    ):
        pieces = response.iter_bytes()
        assert b"tick" in next(pieces)
        server.process.terminate()
        assert list(pieces) == []  # and no error
        assert server.process.wait(30) == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/no-events", 200),
        ("/no-cpu-events", 200),
        ("/no-lines", 503),
        ("/no-lines-of-a-thread", 503),
        ("/no-cpu-lines", 503),
    ],
)
def test_a_drain_does_not_wait_for_the_first_item_of_a_stream(path: str, status: int, tmp_path: Path) -> None:
    """An EventSource connects again after an empty stream, and gives up after a 503."""
    (tmp_path / "service.py").write_text(SIGNALLED)
    with (
        served(*tinysvc("service.py", "--shutdown-timeout", "3600"), cwd=tmp_path) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        answer = threads.submit(httpx.get, server.url + path, timeout=60)
        wait_until((tmp_path / "begun").exists, "the generator runs")
        server.process.terminate()
        assert (answer.result().status_code, answer.result().headers["connection"]) == (status, "close")
        assert server.process.wait(30) == 0
