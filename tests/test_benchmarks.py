"""The benchmarks run. No test checks speed."""

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system import wait_until
from tinysvc.testing import serving

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RUN = BENCHMARKS / "run.py"


def test_part_is_measured_and_written_to_the_results(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("<!-- part io -->\n## measured before\n\n- Missed: something.\n")
    command = [sys.executable, str(RUN), "--quick", "--only", "start", "--output", str(results)]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "BENCH_ENVIRONMENT": sys.prefix})
    assert ran.returncode == 0, ran.stderr
    text = results.read_text()
    assert text.startswith("# Results\n")
    assert text.index("\n- something.\n") < text.index("## measured before")  # missed bars come first
    assert "| import tinysvc |" in text
    assert "| tinysvc, a shared resource" in text
    assert "python3 benchmarks/run.py --only start --quick" in text


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that all parts share."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("harness")


@pytest.fixture
def bare_echo() -> Iterator[str]:
    """Start the echo server; yield its port. It returns the body of a POST, and some JSON for a GET."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, str(BENCHMARKS / "peers" / "bare_echo.py"), str(port)]) as server:
        wait_until(lambda: _listens(port), "the echo server listens")
        yield str(port)
        server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(client: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / client), *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
    return found


def test_big_bodies_are_counted(bare_echo: str) -> None:
    found = ask("echo_load.py", bare_echo, "/echo", str(3 * 2**20), "2", "0.1")
    assert found["failures"] == []
    assert found["done"] >= 2  # each connection sends at least one
    assert found["took"] > 0


def test_short_echo_is_a_failure(bare_echo: str) -> None:
    found = ask("echo_load.py", bare_echo, "/echo", "0", "2", "0.1")  # an empty body gets JSON
    assert found["done"] == 0
    assert [failure.startswith("ValueError: not 200 with as many bytes") for failure in found["failures"]] == [True] * 2


def test_every_due_request_is_counted(bare_echo: str) -> None:
    found = ask("open_loop.py", bare_echo, "100", "0.2", "GET", "/json")
    assert found["asked"] == len(found["latencies"]) == len(found["lateness"]) == 20
    assert found["failures"] == {}
    assert isinstance(found["urgent"], bool)


def test_swap_load_knows_the_version_of_each_response(bare_echo: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "swap_load.py"), bare_echo, "200", "/json"]
    with subprocess.Popen(
        [*command, '{"version": 7}', r'"version": (\d+)', "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as load:
        found = json.loads(load.communicate("", timeout=30)[0])
    assert found["failures"] == []
    assert {version for _, _, version in found["responses"]} == {7}
    assert all(end > due for due, end, _ in found["responses"])


def test_swap_load_counts_refused_requests() -> None:
    command = [sys.executable, str(BENCHMARKS / "swap_load.py"), "9", "200", "/json", "{}", r"(\d)", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        found = json.loads(load.communicate("", timeout=30)[0])
    assert found["responses"] == []
    assert {reason.split()[0] for _, reason in found["failures"]} == {"ConnectionRefusedError"}


def test_every_user_of_a_burst_is_counted(bare_echo: str) -> None:
    found = ask("burst.py", bare_echo, "20", "GET", "/json", "POST", "/json")
    assert len(found["latencies"]) == 20
    assert found["latencies"] == sorted(found["latencies"])
    assert found["latencies"][0] > 0


def test_refused_user_ends_the_burst(harness: Any, tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text("from tinysvc import io_route\n@io_route('/')\nasync def f() -> None: ...\n")
    with serving(str(tmp_path / "nothing.py")) as url:
        peer = harness.Peer(name="it", command=[], port=port_of(url))
        with pytest.raises(
            harness.CannotMeasureError, match=r"it: (?s:.*)200 was expected for /json, not b'HTTP/1.1 404"
        ):
            harness.found_by("burst.py", peer, 2, "GET", "/json")


def test_chart_is_drawn(tmp_path: Path) -> None:
    line = {"x": [1, 10, 100], "y": [1.0, 0.5, 0.25]}
    panels = [{"title": "routes", "lines": [{"name": "`tinysvc`", **line}, {"name": "other", **line}]}]
    chart = json.dumps({"panels": panels, "x": "how many", "y": "requests", "log_x": True})
    command = [sys.executable, str(BENCHMARKS / "charts.py"), str(tmp_path / "chart.svg")]
    subprocess.run(command, input=chart, text=True, check=True, timeout=50)
    svg = (tmp_path / "chart.svg").read_text()
    assert [word in svg for word in ("routes", "tinysvc", "other", "how many", "requests")] == [True] * 5


@pytest.mark.parametrize(
    ("found", "limits", "line"),
    [
        ([2.0, 3.0, 4.0], {"least": 3}, "- Met: it: 3.00 (2.00-4.00), meant is at least 3."),
        ([2.0, 2.9, 4.0], {"least": 3, "why": "Rust."}, "- Missed: it: 2.90 (2.00-4.00), meant is at least 3. Rust."),
        ([2.0, 3.0, 4.0], {"most": 3}, "- Met: it: 3.00 (2.00-4.00), meant is at most 3."),
        ([2.0, 3.1, 4.0], {"most": 3}, "- Missed: it: 3.10 (2.00-4.00), meant is at most 3."),
    ],
)
def test_bar_is_met_or_missed(harness: Any, found: list[float], limits: dict[str, Any], line: str) -> None:
    assert harness.bar("it", found, **limits) == line


@pytest.fixture
def typed(harness: Any) -> Any:
    """The part of this name."""
    return importlib.import_module("parts.typed")


@pytest.mark.usefixtures("harness")
def test_every_part_can_be_measured() -> None:
    for name in importlib.import_module("run").ALL_PARTS:
        part = importlib.import_module(f"parts.{name}")
        assert part.TITLE.startswith(f"{name}: ")
        assert callable(part.measure)


@pytest.mark.parametrize("file", sorted(path.name for path in (BENCHMARKS / "peers").glob("tinysvc_*.py")))
def test_tinysvc_peers_serve(monkeypatch: pytest.MonkeyPatch, file: str, tmp_path: Path) -> None:
    if file == "tinysvc_swap.py":
        publish_small_model(tmp_path)
        monkeypatch.setenv("TINYSVC_MODELS", str(tmp_path / "store"))
    called = ("tinysvc_callee", "tinysvc_chain_second", "tinysvc_chain_third")
    monkeypatch.setenv("ROUTES", "10")
    monkeypatch.setenv("TINYSVC_SERVICES", " ".join(f"{name}=http://127.0.0.1:9" for name in called))
    with serving(str(BENCHMARKS / "peers" / file), cpu_workers=1) as url:
        assert _listens(port_of(url))


def publish_small_model(folder: Path) -> None:
    """Version 1 of the model of the part `models`, in the store of this folder, and its promotion."""
    write = "import sys, pathlib, swap_model; swap_model.write(pathlib.Path(sys.argv[1]), 1, megabytes=1)"
    (folder / "1").mkdir()
    commands = [
        ["-c", write, str(folder / "1")],
        ["swap_store.py", str(folder / "store"), "publish", str(folder / "1")],
        ["swap_store.py", str(folder / "store"), "promote", "1"],
    ]
    for command in commands:
        subprocess.run([sys.executable, *command], cwd=BENCHMARKS / "peers", check=True, timeout=50)


WRK = """Running 2s test @ http://127.0.0.1:1/json
  1 threads and 64 connections
{errors}  188988 requests in {took}, 30.28MB read
Requests/sec:  94494.00
"""


@pytest.mark.parametrize(("took", "seconds"), [("2.00s", 2.0), ("500.00ms", 0.5), ("1.50m", 90.0)])
def test_output_of_wrk_is_parsed(harness: Any, took: str, seconds: float) -> None:
    assert harness.parse_wrk(WRK.format(errors="", took=took)) == (188988, seconds)


@pytest.mark.parametrize(
    "line", ["  Non-2xx or 3xx responses: 5\n", "  Socket errors: connect 0, read 5, write 0, timeout 0\n"]
)
def test_error_in_the_output_of_wrk_ends_the_run(harness: Any, line: str) -> None:
    with pytest.raises(harness.CannotMeasureError, match=line.strip()):
        harness.parse_wrk(WRK.format(errors=line, took="2.00s"))


def test_ratio_compares_numbers_of_the_same_round(harness: Any) -> None:
    rates = {"a": [10.0, 20.0, 90.0], "b": [5.0, 10.0, 10.0]}
    results = {name: [harness.Measured(rate, 1e-5) for rate in each] for name, each in rates.items()}
    assert harness.rates_to(results, "a", "b") == [2.0, 2.0, 9.0]
    assert [
        [cell.strip() for cell in line.split("|")[1:5]]
        for line in harness.rate_table(results, {"b": "ratio"}).splitlines()[2:]
    ] == [["a", "20", "10-90", "2.00"], ["b", "10", "5-10", "1.00 (baseline)"]]


@pytest.mark.usefixtures("nothing_left")
def test_peer_that_does_not_start_is_reported_with_its_output(harness: Any) -> None:
    peer = harness.Peer(name="it", command=[sys.executable, "-c", "exit('no such route')"])
    with pytest.raises(harness.CannotMeasureError, match=r"it did not start: .*\nno such route"):
        peer.start()


@pytest.mark.usefixtures("nothing_left")
def test_interrupt_during_the_start_ends_the_peer(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = harness.Peer(name="it", command=[sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"])
    answers: list[bytes] = []

    def asked(port: int, *_: object) -> tuple[int, bytes]:
        wait_until(lambda: _listens(port), "the peer listens")
        if answers:
            raise KeyboardInterrupt
        answers.append(request(port, "GET", "/")[1])
        return 200, answers[0]

    request = harness.request
    monkeypatch.setattr(harness, "request", asked)
    with pytest.raises(KeyboardInterrupt):
        peer.start()
    assert answers[0].startswith(b"<!DOCTYPE")  # no JSON: the harness sends another request
    assert not _listens(peer.port)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("peer", ["tinysvc_typed.py", "tinysvc_struct.py"])
def test_typed_peers_respond_and_validate(typed: Any, peer: str) -> None:
    with serving(str(BENCHMARKS / "peers" / peer)) as url:
        typed.check(peer, port_of(url))


LENIENT = """
from tinysvc import io_route

@io_route("/orders", methods=["POST"])
async def place(order: dict) -> dict:
    return {receipt!r}
"""


def test_peer_without_validation_is_not_compared(typed: Any, tmp_path: Path) -> None:
    (tmp_path / "lenient.py").write_text(LENIENT.format(receipt=typed.receipt()))
    with (
        serving(str(tmp_path / "lenient.py")) as url,
        pytest.raises(typed.CannotMeasureError, match=r"lenient: a 4xx .* does not validate is not comparable"),
    ):
        typed.check("lenient", port_of(url))


def test_peer_with_a_wrong_total_is_not_compared(typed: Any, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(LENIENT.format(receipt={**typed.receipt(), "total": 1.0}))
    with (
        serving(str(tmp_path / "wrong.py")) as url,
        pytest.raises(typed.CannotMeasureError, match="wrong: 200 with the receipt was expected"),
    ):
        typed.check("wrong", port_of(url))


def test_order_is_about_a_kibibyte(typed: Any) -> None:
    assert 1000 < len(typed.encoded(typed.order())) < 1048
    assert typed.order()["lines"][typed.SPOILT]["quantity"] == 6


@pytest.mark.usefixtures("harness")
def test_capacity_model_agrees_with_queueing_theory() -> None:
    model = importlib.import_module("capacity_model")
    job, busy = 0.02, 0.7
    machine = model.Machine(cores=1, processes=1, job=job, loop=1e-9)
    times = model.response_times(machine, busy / job, count=100_000)
    mean_wait = sum(times) / len(times) - job
    assert mean_wait == pytest.approx(busy * job / (2 * (1 - busy)), rel=0.05)  # Pollaczek and Khinchine, M/D/1


@pytest.mark.usefixtures("harness")
def test_capacity_model_knows_the_limit_of_an_event_loop() -> None:
    model = importlib.import_module("capacity_model")
    machine = model.Machine(cores=32, processes=1, job=0.001, loop=50e-6)
    assert machine.limit == pytest.approx(20_000)
    assert machine._replace(processes=4).limit == pytest.approx(machine.cores_limit)
