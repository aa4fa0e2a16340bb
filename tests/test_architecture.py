"""docs/architecture.md: each name is in the file that the page names, and requests take the described way."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

import tinysvc
from tinysvc.core.settings import Settings
from tinysvc.server.loading import load_service
from tinysvc.server.server import Server
from tinysvc.testing import serving

ROOT = Path(__file__).parents[1]
SOURCE = Path(tinysvc.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = re.compile(r"`((?:\w+/)*\w+\.py)(?:: ([\w.]+))?`")
"""`pool/arena.py` or `pool/arena.py: Arena.take`. A path begins in src/tinysvc, or with tests/ or docs/."""


def names_on_page() -> list[tuple[str, str]]:
    return sorted({(match[1], match[2] or "") for match in NAMED.finditer(PAGE)})


def file_of(path: str) -> Path:
    return (ROOT if path.startswith(("tests/", "docs/")) else SOURCE) / path


@cache
def defined_in(file: Path) -> frozenset[str]:
    """All functions, classes and variables of a file: `name`, or `Class.name`."""
    return frozenset(_names(ast.parse(file.read_text()), ""))


def _names(parent: ast.AST, prefix: str) -> list[str]:
    found = []
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.append(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            found += _names(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign):
            targets = [each for target in node.targets for each in ast.walk(target)]
            found += [prefix + each.id for each in targets if isinstance(each, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(prefix + node.target.id)
    return found


def where_it_is(name: str) -> str:
    """The files that define something of this name now: what to write on the page instead."""
    last = name.rpartition(".")[2]
    files = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    found = [f"{file.name}: {each}" for file in files for each in defined_in(file) if each.rpartition(".")[2] == last]
    return ", ".join(sorted(found)) or "nowhere"


@pytest.mark.parametrize(("path", "name"), names_on_page(), ids=lambda value: value or "-")
def test_name_on_page_exists(path: str, name: str) -> None:
    file = file_of(path)
    assert file.exists(), f"there is no {path}; {name} is in: {where_it_is(name) if name else 'a file that has moved'}"
    assert not name or name in defined_in(file), f"{path} has no {name}; that name is in: {where_it_is(name)}"


def test_page_names_every_room() -> None:
    rooms = {folder.parent.name for folder in SOURCE.glob("*/__init__.py")}
    assert {room for room in rooms if f"| `{room}/` |" not in PAGE} == set()


def test_page_walks_through_the_rooms() -> None:
    """The page must not lose its names, say by another way to write them."""
    files = {path.partition("/")[0] for path, _ in names_on_page()}
    assert {"core", "wire", "http.py", "executor.py", "pool", "binding", "service", "runtime", "server"} <= files
    assert len(names_on_page()) > 100


IO_REQUEST = b"GET /hello/Ada HTTP/1.1\r\nhost: x\r\n\r\n"
CPU_REQUEST = (
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"content-length: 21\r\nexpect: 100-continue\r\n\r\n"
)
CPU_BODY = b'{"values": [1, 2, 3]}'
"""It is sent when the server asks for it: so it arrives after the head, as the walk says."""


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("heading", "request_head", "body", "reply"),
    [("An io request", IO_REQUEST, b"", b"hello Ada"), ("A cpu request", CPU_REQUEST, CPU_BODY, b"1.375")],
    ids=["io", "cpu"],
)
async def test_request_calls_what_the_page_says(
    heading: str, request_head: bytes, body: bytes, reply: bytes, tmp_path: Path
) -> None:
    """The steps in the server process, with the service of the README."""
    section = PAGE.partition(f"## {heading}")[2].partition("\n## ")[0]
    steps = [line for line in section.splitlines() if re.match(r"\| \d", line) and "| worker |" not in line]
    named = {(match[1], match[2] or "") for line in steps for match in NAMED.finditer(line)}
    if not body:
        named.discard(("wire/bodies.py", "BodyReader"))
    file = tmp_path / f"walk_{len(body)}.py"  # a name of its own: modules stay imported
    file.write_text((ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0])
    server = Server(load_service(str(file)), Settings(port=0, cpu_workers=1))
    async with server.listening() as url:
        with calls() as called:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(request_head)
            if body:
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            assert reply in await reader.readexactly(int(length[1]))
            writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(named) > 8
    assert {each for each in named if not is_called(*each, called)} == set(), "named on the page, but not called"


CALLEE = """
from tinysvc import io_route

@io_route("/walked", methods=["POST"])
async def walked(values: list[int]) -> int:
    return sum(values)
"""
CALLER = """
import walked_callee
from tinysvc import call, io_route

@io_route("/")
async def caller() -> int:
    return await call(walked_callee.walked, [1, 2])
"""


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_call_calls_what_the_page_says(tmp_path: Path) -> None:
    """The second call: the first one opens the connection."""
    section = PAGE.partition("## A call to another service")[2].partition("\n## ")[0]
    steps = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    named = {(match[1], match[2] or "") for line in steps for match in NAMED.finditer(line)}
    named.discard(("runtime/call_targets.py", "CallTable.find"))  # its result is kept
    for name, text in (("walked_callee", CALLEE), ("walked_caller", CALLER)):
        (tmp_path / f"{name}.py").write_text(text)
    with serving(str(tmp_path / "walked_callee.py")) as address:
        server = Server(
            load_service(str(tmp_path / "walked_caller.py")), Settings(port=0, services=f"walked_callee={address}")
        )
        async with server.listening() as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            for _ in range(2):
                with calls() as called:
                    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                    await reader.readuntil(b"\r\n\r\n")
                    assert await reader.readexactly(1) == b"3"
            writer.close()
    assert len(named) > 12
    assert {each for each in named if not is_called(*each, called)} == set(), "named on the page, but not called"


JOB = """
from tinysvc import Job, job_route

@job_route("/walked")
def walked(job: Job) -> int:
    job.progress(0.5)
    job.save(1)
    return 7
"""


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_durable_job_calls_what_the_page_says(tmp_path: Path) -> None:
    """The steps in the server process, which is the keeper, too; its file has a thread of its own."""
    section = PAGE.partition("## A durable job")[2].partition("\n## ")[0]
    steps = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    steps = [line for line in steps if "| worker |" not in line and "| keeper |" not in line]
    named = {(match[1], match[2] or "") for line in steps for match in NAMED.finditer(line)}
    named -= {
        ("runtime/job.py", "Attempt"),
        ("jobs/attempts/attempt_ends.py", "end_by_error"),
        ("jobs/states.py", "claim"),
    }
    (tmp_path / "walked_job.py").write_text(JOB)
    settings = Settings(port=0, cpu_workers=1, jobs=str(tmp_path / "jobs.db"))
    async with Server(load_service(str(tmp_path / "walked_job.py")), settings).listening() as url:
        with calls() as called:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"POST /walked HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202 ")
            location = re.search(rb"location: (\S+)", head)
            length = re.search(rb"content-length: (\d+)", head)
            assert location is not None
            assert length is not None
            await reader.readexactly(int(length[1]))
            writer.write(b"GET %b/result HTTP/1.1\r\nhost: x\r\nprefer: wait=20\r\n\r\n" % location[1])
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(1) == b"7"
            writer.close()
    assert len(named) > 8
    assert {each for each in named if not is_called(*each, called)} == set(), "named on the page, but not called"


MOST_IO_CALLS = 12
"""Functions of tinysvc that a bare io request calls, from its bytes to the bytes of its response."""


@pytest.mark.usefixtures("nothing_left")
def test_bare_io_request_calls_few_functions(tmp_path: Path) -> None:
    """On a connection that has served such requests before. A function counts as often as it is called."""
    file = tmp_path / "bare_walk.py"
    file.write_text('from tinysvc import io_route\n@io_route("/")\nasync def f() -> dict:\n    return {"a": 1}\n')

    async def third_request() -> list[tuple[str, str]]:
        async with Server(load_service(str(file)), Settings(port=0)).listening() as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            for _ in range(3):
                with calls() as called:
                    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                    await reader.readuntil(b'{"a":1}')
            writer.close()
            return called

    called = Context().run(asyncio.run, third_request())  # without the context variables of pytest
    assert ("http.py", "Connection.serve") in called
    assert len(called) <= MOST_IO_CALLS, "\n".join(f"{path}: {name}" for path, name in called)


MOST_CPU_CALLS = 45
"""Functions of tinysvc that a bare cpu request calls, in the server and in the worker."""

MOST_CALLS_TO_WORKER = 3
"""Of these, the functions that `submit_job` calls before the bytes are on the worker's socket."""

CPU_WALK = """
import sys
from tinysvc import cpu_route

called = []

def note(frame, event, _):
    file = frame.f_code.co_filename
    if event == "call" and file.startswith(SOURCE):
        called.append(f"{file.removeprefix(SOURCE)}: {frame.f_code.co_qualname}")

@cpu_route("/")
def f() -> list:
    sys.setprofile.__wrapped__(note)  # as the worker resets what a handler sets by sys.setprofile
    before, called[:] = list(called), []
    return before
"""


@pytest.mark.usefixtures("nothing_left")
def test_bare_cpu_request_calls_few_functions(tmp_path: Path) -> None:
    """As for an io request. The worker reports its calls since the handler ran in the request before."""
    file = tmp_path / "cpu_walk.py"
    file.write_text(CPU_WALK.replace("SOURCE", repr(f"{SOURCE}/")))

    async def last_request() -> tuple[list[tuple[str, str]], list[str]]:
        settings = Settings(port=0, cpu_workers=1)
        async with Server(load_service(str(file)), settings).listening() as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            for _ in range(4):
                with calls() as called:
                    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"content-length: (\d+)", head)
                    assert length is not None
                    body = await reader.readexactly(int(length[1]))
            writer.close()
            return called, json.loads(body)

    in_server, in_worker = Context().run(asyncio.run, last_request())  # without the context variables of pytest
    all_calls = [*(f"{path}: {name}" for path, name in in_server), "in the worker:", *in_worker]
    assert "pool/worker_channel.py: WorkerChannel.receive" in in_worker
    assert len(all_calls) - 1 <= MOST_CPU_CALLS, "\n".join(all_calls)
    names = [each.rpartition(".")[2] for each in all_calls]
    start, sent = names.index("submit_job"), names.index("send")
    assert sent - start <= MOST_CALLS_TO_WORKER, "\n".join(all_calls[start : sent + 1])


def is_called(path: str, name: str, called: list[tuple[str, str]]) -> bool:
    """Whether the function ran, or a method of the class, or a function inside of it."""
    return any(file == path and (each == name or each.startswith(f"{name}.")) for file, each in called)


@contextmanager
def calls() -> Iterator[list[tuple[str, str]]]:
    """File and qualified name of each call of a function of tinysvc in this thread, in order.

    A coroutine that goes on after an `await` is not called again.
    """
    called: list[tuple[str, str]] = []
    coroutines: set[FrameType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(SOURCE)) and frame not in coroutines:
            if frame.f_code.co_flags & inspect.CO_COROUTINE:
                coroutines.add(frame)
            called.append((str(Path(file).relative_to(SOURCE)), frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(before)
        coroutines.clear()
