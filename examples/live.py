"""Events as they happen: a progress bar for a computation. Open http://127.0.0.1:8000/live, or:

    curl -N 'http://127.0.0.1:8000/live/primes?below=3000000'
    curl -N http://127.0.0.1:8000/live/ticks -H 'last-event-id: 41'

Pages of other origins may read the events, too (`Cors`). The computation is a `cpu_route` that yields events. When the
page is closed, the client disconnects, and the computation is stopped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from math import isqrt
from typing import Annotated

import msgspec

from tinysvc import Event, EventStream, Header, Response, Service, cpu_route, io_route
from tinysvc.web.cors import Cors

STEP = 50_000


@cpu_route("/primes", timeout=60.0)
def primes(below: Annotated[int, msgspec.Meta(ge=2, le=5_000_000)] = 1_000_000) -> Iterator[Event]:
    """Count the primes, with an event for the progress."""
    small = sieve(isqrt(below) + 1)
    count = 0
    for start in range(2, below, STEP):
        end = min(start + STEP, below)
        count += len(segment(start, end, small))
        yield Event({"done": (end - 2) / max(1, below - 2), "count": count}, event="progress")
    yield Event({"count": count}, event="result")


def sieve(end: int) -> list[int]:
    """The primes below `end`."""
    is_prime = bytearray([1]) * max(2, end)
    is_prime[:2] = b"\0\0"
    for number in range(2, isqrt(end) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, len(is_prime), number)))
    return [number for number in range(2, end) if is_prime[number]]


def segment(start: int, end: int, small: list[int]) -> list[int]:
    """The primes from `start` to before `end`, found with the primes up to the root of `end`."""
    is_prime = bytearray([1]) * (end - start)
    for prime in small:
        first = max(prime * prime, -(-start // prime) * prime)
        is_prime[first - start :: prime] = bytes(len(range(first - start, end - start, prime)))
    return [start + i for i, flag in enumerate(is_prime) if flag]


@io_route("/ticks")
async def ticks(last: Annotated[int, Header("last-event-id")] = 0) -> EventStream:
    """A number each second. After a reconnect it continues with the next number: browsers send the last id."""

    async def events() -> AsyncIterator[Event]:
        number = last
        while True:
            number += 1
            yield Event(number, id=str(number), retry=1000)
            await asyncio.sleep(1)

    return EventStream(events())


@io_route("/")
async def page() -> Response:
    """The page with the progress bar."""
    return Response(PAGE, content_type="text/html; charset=utf-8")


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>live</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
progress { width: 100%; height: 1.5rem }
input, button { font: inherit; padding: .3rem }
</style>
<h1>How many primes are there?</h1>
<form>
  <label>below <input id="below" type="number" min="2" max="5000000" value="1000000"></label>
  <button>Count</button>
</form>
<p><progress id="bar" value="0" max="1" aria-label="how far we are"></progress></p>
<p id="state" role="status">nothing is counted</p>
<script>
const [bar, state, below] = ["bar", "state", "below"].map(id => document.getElementById(id));
const base = location.pathname.replace(/\\/$/, "");
let source;
document.querySelector("form").onsubmit = event => {
  event.preventDefault();
  source?.close();  // the disconnect stops the old computation
  source = new EventSource(base + "/primes?below=" + below.value);
  source.addEventListener("progress", message => {
    const {done, count} = JSON.parse(message.data);
    bar.value = done;
    state.textContent = count + " so far";
  });
  source.addEventListener("result", message => {
    source.close();
    state.textContent = "There are " + JSON.parse(message.data).count + " primes below " + below.value + ".";
  });
  source.onerror = () => { source.close(); state.textContent = "the connection was lost"; };
};
</script>
</html>
"""

service = Service(sys.modules[__name__], middleware=[Cors(origins=["*"])])
