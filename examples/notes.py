"""Notes in a SQLite database. Try:

    curl -i http://127.0.0.1:8000/notes -H 'content-type: application/json' -d '{"title": "Buy milk"}'
    curl 'http://127.0.0.1:8000/notes?search=milk'

sqlite3 blocks, so the handlers are `def`: each runs in a thread and does not block the event loop.
The notes are in memory, or in the file that the variable NOTES_DB names.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from typing import Annotated

import msgspec

from tinysvc import HTTPError, Request, Response, io_resource, io_route
from tinysvc.web.conditional import precondition, validators
from tinysvc.web.negotiation import negotiated

NoteId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
NO_NOTE = {404: "There is no such note."}

SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, text TEXT NOT NULL)
"""
NEWEST = """
SELECT id, title, text FROM notes WHERE instr(lower(title || ' ' || text), lower(?)) ORDER BY id DESC LIMIT ?
"""


@dataclass
class Draft:
    """A note as a client sends it."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    text: str = ""


@dataclass
class Note:
    """A note as the service returns it."""

    id: int
    title: str
    text: str


class Database:
    """One connection for all threads; one transaction at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:  # commits at the end, or rolls back after an exception
            yield self._connection


@io_resource
def database() -> Iterator[Database]:
    """Opened once, when the server starts, for handlers with a parameter `database`; closed when the server stops."""
    path = os.environ.get("NOTES_DB", ":memory:")
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        connection.execute(SCHEMA)
        yield Database(connection)


@io_route("/", methods=["POST"], responses={201: Note})
def create(request: Request, draft: Draft, database: Database) -> Response:
    """Create a note."""
    with database.transaction() as sql:
        cursor = sql.execute("INSERT INTO notes (title, text) VALUES (?, ?)", (draft.title, draft.text))
    note = Note(cursor.lastrowid or 0, draft.title, draft.text)
    return Response(note, 201, {"location": request.url_for(read, note_id=note.id)})


@io_route("/")
def newest(database: Database, limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20, search: str = "") -> list[Note]:
    """The newest notes; with `search`, those that contain this text."""
    with database.transaction() as sql:
        rows = sql.execute(NEWEST, (search, limit)).fetchall()
    return [Note(*row) for row in rows]


@io_route("/{note_id}", responses={200: Note, 304: "Nothing has changed.", **NO_NOTE, 406: "In none of these types."})
def read(request: Request, note_id: NoteId, database: Database) -> Response:
    """One note, as JSON, MessagePack or a page; 304 if the client has the current version."""
    with database.transaction() as sql:
        note = found(sql, note_id)
    if not_modified := precondition(request, etag=tag_of(note)):
        return not_modified
    response = negotiated(request, note, html=page_of)
    response.headers += validators(etag=tag_of(note))
    return response


@io_route("/{note_id}", methods=["PUT"], responses={**NO_NOTE, 412: "It has been changed meanwhile."})
def replace(request: Request, note_id: NoteId, draft: Draft, database: Database) -> Note:
    """Replace a note. With If-Match, a write that is based on a stale copy is a 412, so no change is lost."""
    with database.transaction() as sql:
        precondition(request, etag=tag_of(found(sql, note_id)))
        sql.execute("UPDATE notes SET title = ?, text = ? WHERE id = ?", (draft.title, draft.text, note_id))
    return Note(note_id, draft.title, draft.text)


@io_route("/{note_id}", methods=["DELETE"], responses=NO_NOTE)
def delete(note_id: NoteId, database: Database) -> None:
    """Delete a note. The handler returns None, so the response is 204 No Content."""
    with database.transaction() as sql:
        deleted = sql.execute("DELETE FROM notes WHERE id = ?", (note_id,)).rowcount
    if not deleted:
        raise no_note(note_id)


def found(sql: sqlite3.Connection, note_id: int) -> Note:
    row = sql.execute("SELECT id, title, text FROM notes WHERE id = ?", (note_id,)).fetchone()
    if row is None:
        raise no_note(note_id)
    return Note(*row)


def tag_of(note: Note) -> str:
    """An entity-tag, which changes with the note."""
    return sha256(f"{note.title}\0{note.text}".encode()).hexdigest()[:16]


def page_of(note: Note) -> str:
    return f"<!doctype html><title>{escape(note.title)}</title><h1>{escape(note.title)}</h1><p>{escape(note.text)}"


def no_note(note_id: int) -> HTTPError:
    return HTTPError(404, f"There is no note {note_id}.")
