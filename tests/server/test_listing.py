"""listing.py: tables of routes and settings in a terminal."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest

import faulty
import resources_jobs
from tinysvc import Pool, Service, job_route
from tinysvc.core.settings import Settings, load_settings
from tinysvc.server.listing import is_colourful, route_table, settings_table


def test_route_table_shows_each_route() -> None:
    assert route_table(Service(faulty.io, faulty.predict, prefix="/p")) == (
        "GET   /p/io/{number}  io   faulty.io\nPOST  /p/predict      cpu  faulty.predict"
    )


def test_route_table_shows_the_options() -> None:
    table = route_table(Service(resources_jobs.batched, resources_jobs.cached, resources_jobs.user, resources_jobs.key))
    assert "cpu  resources_jobs.batched  batch=4\n" in table
    assert table.endswith("resources_jobs.cached   cache=60s")


@job_route("/cleanups", timeout=60, every="0 3 * * *", zone="Europe/Berlin")
def cleanup() -> None: ...


def test_route_table_shows_the_verbs_of_a_job_route() -> None:
    options = 'test_listing.cleanup  timeout=60s attempts=3 every="0 3 * * *" zone=Europe/Berlin'
    assert route_table(Service(cleanup, prefix="/p")).splitlines() == [
        f"POST GET    /p/cleanups                  job  {options}",
        "GET DELETE  /p/cleanups/{job_id}         job  test_listing.cleanup",
        "GET         /p/cleanups/{job_id}/result  job  test_listing.cleanup",
        "POST        /p/cleanups/{job_id}/retry   job  test_listing.cleanup",
    ]


def test_colours() -> None:
    assert "\x1b[33mcpu\x1b[0m" in route_table(Service(faulty.predict), colour=True)
    assert "\x1b" not in route_table(Service(faulty.predict))


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "is_one"),
    [
        (Terminal(), {}, True),
        (StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
    ],
)
def test_terminal_without_no_color_gets_colours(stream: StringIO, environ: dict[str, str], is_one: bool) -> None:
    assert is_colourful(stream, environ) == is_one


def test_closed_stream_gets_no_colours() -> None:
    stream = StringIO()
    stream.close()
    assert not is_colourful(stream, {})


def test_settings_and_where_they_come_from() -> None:
    options: dict[str, Any] = {"port": 9000, "host": None}
    environ = {"TINYSVC_QUEUE_SIZE": "7", "TINYSVC_PORT": "8", "TINYSVC_POOLS": "gpu:workers=1"}
    own = {"cpu_timeout": 3.0, "pools": {"gpu": Pool(queue_size=2)}}
    table = settings_table(load_settings(options, environ, own), options, environ, own)
    lines = {line.split()[0]: line.split(None, 1)[1] for line in table.splitlines()}
    assert lines["port"].split() == ["9000", "command", "line"]
    assert lines["queue_size"].split() == ["7", "TINYSVC_QUEUE_SIZE"]
    assert lines["cpu_timeout"].split() == ["3.0", "Service(...)"]
    assert lines["host"].split() == ["'127.0.0.1'", "default"]
    assert lines["pools"].split() == ["'gpu:workers=1,queue_size=2'", "Service(...),", "TINYSVC_POOLS"]
    assert set(lines) == set(vars(Settings()))
