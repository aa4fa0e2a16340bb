"""How long does the k-th of K users wait? Open http://127.0.0.1:8000/users/measure in a browser, or:

    curl 'http://127.0.0.1:8000/users/measure?k=40' -o users.json
    curl http://127.0.0.1:8000/users/chart -H 'content-type: application/json' --data-binary @users.json -o users.svg

Two kinds of work, 50 milliseconds each, are done in three ways. Waiting belongs on the event loop: all requests wait at
the same time. Computing belongs in workers: one computation on each core. Code that blocks the loop delays
all requests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import msgspec

from tinysvc import Header, HTTPError, Query, Request, Response, cpu_route, io_route

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SECONDS = 0.05


# Waiting: for a database, another service, a disk


@io_route("/wait/blocking")
async def wait_blocking() -> str:
    """The mistake: it sleeps on the event loop, and blocks all other requests."""
    time.sleep(SECONDS)
    return "waited\n"


@io_route("/wait/io")
async def wait_io() -> str:
    """`await` lets other requests run while this one waits."""
    await anyio.sleep(SECONDS)
    return "waited\n"


@cpu_route("/wait/cpu")
def wait_cpu() -> str:
    """It blocks no other request, but it wastes a worker on waiting."""
    time.sleep(SECONDS)
    return "waited\n"


# Computing


def compute() -> None:
    """Use 50 milliseconds of CPU time, also if other computations share the core."""
    end = time.thread_time() + SECONDS
    while time.thread_time() < end:
        sum(range(1000))


@io_route("/compute/blocking")
async def compute_blocking() -> str:
    """The mistake: it computes on the event loop, and blocks all other requests."""
    compute()
    return "computed\n"


@io_route("/compute/io")
def compute_io() -> str:
    """A `def` on an io route runs in a thread. Python runs one thread at a time, so all threads become slow."""
    compute()
    return "computed\n"


@cpu_route("/compute/cpu")
def compute_cpu() -> str:
    """Workers compute at the same time, each on its own core."""
    compute()
    return "computed\n"


# Measuring

Latencies = Annotated[
    list[Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]], msgspec.Meta(min_length=1, max_length=200)
]


@dataclass
class Ways:
    """Latencies in milliseconds, in the order of the responses."""

    blocking: Latencies
    io: Latencies
    cpu: Latencies


@dataclass
class Measurement:
    k: Annotated[int, msgspec.Meta(ge=1, le=200)]
    workers: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    wait: Ways
    compute: Ways


@io_route("/measure", responses={503: "Another measurement is running."})
def measure(
    request: Request,
    k: Annotated[int, msgspec.Meta(ge=1, le=200), Query()] = 40,
    accept: Annotated[str, Header()] = "",
) -> Measurement | Response:
    """Send `k` simultaneous requests to each of the six routes above, one route after the other.

    The clients must not run on the event loop that they measure, because it is blocked at times. This is a `def`, so it
    runs in a thread, where it starts its own event loop.
    """
    if "text/html" in accept:
        return Response(PAGE, content_type="text/html; charset=utf-8", headers={"vary": "accept"})
    with alone():
        try:
            return asyncio.run(measured(request.server, request.raw_path.rpartition("/")[0], k))
        except (OSError, EOFError, TimeoutError) as error:
            raise HTTPError(503, f"The measurement failed: {error!r}.") from None


_measuring = threading.Lock()


@contextmanager
def alone() -> Iterator[None]:
    """Simultaneous measurements would disturb each other."""
    if not _measuring.acquire(blocking=False):
        raise HTTPError(503, "Another measurement is running.", headers=[("retry-after", "10")])
    try:
        yield
    finally:
        _measuring.release()


async def measured(address: Any, prefix: str, k: int) -> Measurement:
    wait = [await crowd(address, f"{prefix}/wait/{way}", k) for way in COLOURS]
    compute = [await crowd(address, f"{prefix}/compute/{way}", k) for way in COLOURS]
    return Measurement(k, await workers_of(address), Ways(*wait), Ways(*compute))


async def crowd(address: Any, path: str, k: int) -> list[float]:
    """The latencies of `k` requests, sorted. All clients connect before the first request."""
    async with asyncio.timeout(60):
        users = [await User.connected(address) for _ in range(k)]
        start = time.perf_counter()
        for user in users:
            user.ask(path)
        answered = await asyncio.gather(*(user.answered() for user in users))
    return sorted(round((at - start) * 1000, 1) for at, _ in answered)


async def workers_of(address: Any) -> int:
    """The number of workers for cpu routes, as /readyz reports it."""
    user = await User.connected(address)
    user.ask("/readyz")
    _, body = await user.answered()
    return int(msgspec.json.decode(body)["pools"]["default"]["workers"])


class User:
    """One connection, one request, one response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connected(cls, address: Any) -> User:
        if isinstance(address, str):
            return cls(*await asyncio.open_unix_connection(address))
        return cls(*await asyncio.open_connection(*address[:2]))

    def ask(self, path: str) -> None:
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())

    async def answered(self) -> tuple[float, bytes]:
        """The time of the response, and its body."""
        with closing(self._writer):
            head = await self._reader.readuntil(b"\r\n\r\n")
            at = time.perf_counter()
            body = await self._reader.read()
        if not head.startswith(b"HTTP/1.1 200 "):
            raise OSError(head.decode("latin-1").partition("\r\n")[0])
        return at, body


# Drawing

COLOURS = {"blocking": "#d55e00", "io": "#009e73", "cpu": "#0072b2"}  # distinct for colour-blind readers


@cpu_route("/chart", methods=["POST"])
def chart(measurement: Measurement, file_format: Annotated[Literal["svg", "png"], Query("format")] = "svg") -> Response:
    """The measurement as a chart, SVG or PNG."""
    try:
        from matplotlib.figure import (
            Figure,
        )  # here, not at the top: the import takes half a second, which only this route needs
    except ImportError as error:
        raise HTTPError(503, f"matplotlib cannot be imported ({error}); pip install 'tinysvc[examples]'") from None
    figure = Figure(figsize=(10, 4.6), layout="constrained", facecolor="white")
    k, workers = measurement.k, measurement.workers
    title = f"How long the k-th of {k} simultaneous users waits ({workers} worker{'s' * (workers > 1)})"
    figure.suptitle(title, fontsize=14, fontweight="bold")
    left, right = figure.subplots(1, 2, sharey=True)
    draw(left, "50 ms of waiting", measurement.wait, "io_route, async def")
    draw(right, "50 ms of computing", measurement.compute, "io_route, def (in a thread)")
    left.set_ylabel("latency in ms")
    highest = left.get_ylim()[1]
    left.set_yticks([tick for tick in left.get_yticks() if 0 <= tick <= highest])
    left.set_ylim(0, 1.4 * highest)  # room for the legends
    picture = BytesIO()
    figure.savefig(picture, format=file_format, dpi=160)
    return Response(picture.getvalue(), content_type={"svg": "image/svg+xml", "png": "image/png"}[file_format])


def draw(axes: Axes, title: str, ways: Ways, io_label: str) -> None:
    """One panel, with a line for each way."""
    labels = {"blocking": "async def that blocks", "io": io_label, "cpu": "cpu_route"}
    for way, latencies in vars(ways).items():
        label = f"{labels[way]}: the last waits {latencies[-1]:,.0f} ms"
        users = range(1, len(latencies) + 1)
        axes.plot(users, latencies, color=COLOURS[way], label=label, marker="o", markersize=3)
    axes.set_title(title)
    axes.set_xlabel("k-th user to be answered")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5")
    axes.legend(loc="upper left", labelcolor="linecolor", frameon=False)


PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>The k-th user</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
  img { width: 100%; border-radius: 6px; }
</style>
<h1>How long does the k-th of K users wait?</h1>
<form>K = <input name="k" type="number" min="1" max="200" value="40"> <button>Measure</button></form>
<p>Measuring. Some of the routes block the whole server during the measurement, on purpose.</p>
<img alt="Two charts: the latency of the k-th user, for waiting and for computing" hidden>
<script type="module">
  const [input, status, image] = ["input", "p", "img"].map(name => document.querySelector(name));

  async function ask(url, options) {
    const response = await fetch(url, options);
    if (!response.ok) throw new Error((await response.json()).detail);
    return response;
  }

  async function show() {
    input.value = new URLSearchParams(location.search).get("k") ?? 40;
    const measured = await ask(location.href, {headers: {accept: "application/json"}, cache: "no-store"});
    status.textContent = "Drawing.";
    const drawn = await ask("chart", {
      method: "POST", headers: {"content-type": "application/json"}, body: await measured.text()
    });
    image.src = URL.createObjectURL(await drawn.blob());
    image.hidden = false;
    status.textContent = "";
  }

  show().catch(error => { status.textContent = error.message; });
</script>
</html>
"""
