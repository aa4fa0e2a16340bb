"""server_process.py: the reports of a server process to its supervisor, and its part of the settings."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from commands import failed, tinysvc
from tinysvc.core.pool_settings import Pool
from tinysvc.core.settings import Settings
from tinysvc.server.server_process import SupervisorLink, end_in_words, settings_of_one_process

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_failure_is_reported_and_ends_the_process() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(SystemExit) as raised:
            SupervisorLink(theirs).failed("no data", 3)
        assert (raised.value.code, json.loads(ours.recv(4096))) == (3, {"failed": ["no data", 3]})


def test_report_to_an_ended_supervisor_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        SupervisorLink(theirs).ready()


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [(3, "ended with status 3"), (-9, "was ended by SIGKILL"), (-40, "was ended by signal 40")],
)
def test_end_in_words(exit_code: int, words: str) -> None:
    assert end_in_words(exit_code) == words


def test_each_process_gets_its_part_of_the_workers_rounded_up() -> None:
    settings = Settings(workers=3, cpu_workers=4, pools={"a": Pool(workers=1), "b": Pool(workers=9), "c": Pool()})
    part = settings_of_one_process(settings)
    assert (part.workers, part.cpu_workers) == (1, 2)
    assert [part.pool(name)["workers"] for name in "abc"] == [1, 3, 2]


# Failures at the start

MISTAKES = {
    "broken": ("1 / 0\n", 3, r"importing .*broken\.py failed:\nTraceback.*ZeroDivisionError: division by zero\n"),
    "exits": ("raise SystemExit(4)\n", 3, r"importing .*SystemExit: 4\n"),
    "plain": ("x = 1\n", 3, r"the module plain .* has no function with @io_route, @cpu_route or @job_route\n"),
    "nodata": (
        "from tinysvc import io_resource, io_route\n@io_resource\nasync def data():\n    raise OSError('no data')\n"
        "@io_route('/')\nasync def f(data) -> None: ...\n",
        3,
        r"the resource data cannot be opened:\nTraceback.*OSError: no data\n",
    ),
    "nomodel": (
        "from tinysvc import cpu_resource, cpu_route\n@cpu_resource\ndef model():\n    raise OSError('no model')\n"
        "@cpu_route('/')\ndef f(model) -> None: ...\n",
        3,
        r"a worker cannot start\nTraceback.*OSError: no model\n",
    ),
    "option": (
        "import tinysvc\nservice = tinysvc.Service(prot=1)\n",
        2,
        r".*option.py:2: Service\(...\) takes no 'prot'; did you mean port\?\n",
    ),
    "dies": (
        "import os\nos._exit(7)\n",
        3,
        r"cannot start: server process [0-9]+ ended with status 7\n",
    ),
    "crashes": (
        "import os\nos.kill(os.getpid(), 11)\n",
        3,
        r"cannot start: server process [0-9]+ was ended by SIGSEGV\n",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_reported_once(tmp_path: Path, name: str) -> None:
    text, status, says = MISTAKES[name]
    (tmp_path / f"{name}.py").write_text(text)
    got, errors = failed(*tinysvc(f"{name}.py", "--workers", "2"), cwd=tmp_path)
    assert re.fullmatch("tinysvc: " + says, errors, re.DOTALL), errors
    assert errors.count("tinysvc: ") == 1
    assert got == status


def test_unknown_target_is_reported_once(tmp_path: Path) -> None:
    status, errors = failed(*tinysvc("nowhere.py", "--workers", "2"), cwd=tmp_path)
    assert (status, errors.count("there is no file or folder")) == (2, 1)
