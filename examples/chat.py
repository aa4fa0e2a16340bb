"""Chat rooms over WebSocket. Open http://127.0.0.1:8000/chat in two windows.

A room is a set of queues in this process, one for each socket. A slow reader misses lines, and gets a line that says
so; no other reader waits for it. With several server processes (`--workers`) each has its own rooms: share
them with Redis, for example.
"""

from __future__ import annotations

import asyncio
import html
from collections import defaultdict
from typing import Annotated
from urllib.parse import quote, unquote

import msgspec

from tinysvc import Cookie, Request, Response, WebSocket, io_route
from tinysvc.web.cookies import set_cookie

MAX_WAITING = 100
"""Lines that may wait for one reader."""


class Line(msgspec.Struct):
    """A line of the chat, in both directions. A line of the room itself has the room's name."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


rooms: dict[str, set[asyncio.Queue[Line]]] = defaultdict(set)


@io_route("/rooms/{room}")
async def chat(socket: WebSocket, room: Annotated[str, msgspec.Meta(max_length=40)]) -> None:
    """Two tasks for each socket: one distributes received lines, the other sends lines to the client."""
    await socket.accept()
    queue: asyncio.Queue[Line] = asyncio.Queue(MAX_WAITING)
    rooms[room].add(queue)
    say(room, Line(room, "a user has joined"))
    sender = asyncio.create_task(send_all(socket, queue))
    try:
        while True:  # until SocketClosed
            say(room, await socket.receive_json(Line))
    finally:
        sender.cancel()
        rooms[room].discard(queue)
        say(room, Line(room, "a user has left"))
        if not rooms[room]:
            del rooms[room]


def say(room: str, line: Line) -> None:
    for queue in rooms[room]:
        if queue.full():
            queue.get_nowait()
            queue.get_nowait()
            queue.put_nowait(Line(room, "you missed some lines"))
        queue.put_nowait(line)


async def send_all(socket: WebSocket, queue: asyncio.Queue[Line]) -> None:
    while True:
        await socket.send_json(await queue.get())


@io_route("/")
async def page(
    request: Request,
    room: Annotated[str, msgspec.Meta(max_length=40)] = "",
    last: Annotated[str, msgspec.Meta(max_length=400), Cookie("room")] = "",
) -> Response:
    """The page. ?room= names a room; without it, a cookie remembers the last room."""
    name = room or unquote(last) or "lobby"
    response = Response(PAGE.replace("ROOM", html.escape(name, quote=True)), content_type="text/html; charset=utf-8")
    if room:
        set_cookie(response, "room", quote(room, safe=""), max_age=30 * 86400, secure=request.scheme == "https")
    return response


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>chat: ROOM</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
#lines { border: 1px solid #8884; border-radius: 6px; height: 50vh; overflow-y: auto; padding: .5rem; margin: 1rem 0 }
#lines p { margin: 0; overflow-wrap: anywhere }
form { display: flex; gap: .5rem; flex-wrap: wrap }
input { font: inherit; padding: .3rem }
#text { flex: 1 }
</style>
<h1>ROOM</h1>
<p id="state" role="status">connecting ...</p>
<div id="lines" role="log" aria-label="messages" data-room="ROOM" tabindex="0"></div>
<form>
  <input id="name" aria-label="your name" value="guest" maxlength="40" required size="8">
  <input id="text" aria-label="your message" maxlength="500" required autofocus autocomplete="off">
  <button>Say</button>
</form>
<script>
const [state, lines, name, text] = ["state", "lines", "name", "text"].map(id => document.getElementById(id));
const base = location.href.replace(/^http/, "ws").replace(/[?#].*/, "").replace(/\\/$/, "");
let socket;

function connect(wait) {
  socket = new WebSocket(base + "/rooms/" + encodeURIComponent(lines.dataset.room));
  socket.onopen = () => { state.textContent = "connected"; wait = 500; };
  socket.onmessage = message => {
    const said = JSON.parse(message.data), line = document.createElement("p");
    line.textContent = said.name + ": " + said.text;
    lines.append(line);
    lines.scrollTop = lines.scrollHeight;
  };
  socket.onclose = event => {
    state.textContent = "disconnected (" + event.code + "); trying again";
    setTimeout(connect, wait, Math.min(2 * wait, 10000));
  };
}

document.querySelector("form").onsubmit = event => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({name: name.value, text: text.value}));
    text.value = "";
  }
};
connect(500);
</script>
</html>
"""
