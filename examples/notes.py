"""Notes in a SQLite database. Try:

    curl -i http://127.0.0.1:8000/notes -H 'content-type: application/json' -d '{"title": "Buy milk"}'
    curl 'http://127.0.0.1:8000/notes?search=milk'

sqlite3 blocks while it works, so the handlers are `def`: each runs in a thread, and the event loop stays free.
The notes live in memory, or in the file named by the variable NOTES_DB.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Annotated

import msgspec

from tinysvc import HTTPError, Request, Response, io_resource, io_route

NoteId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]

SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, text TEXT NOT NULL)
"""
NEWEST = """
SELECT id, title, text FROM notes WHERE instr(lower(title || ' ' || text), lower(?)) ORDER BY id DESC LIMIT ?
"""


@dataclass
class Draft:
    """What a client sends."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    text: str = ""


@dataclass
class Note:
    """What it gets back."""

    id: int
    title: str
    text: str


class Database:
    """One connection for all threads, one transaction at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:  # commits at the end, or rolls back what failed
            yield self._connection


@io_resource
def database() -> Iterator[Database]:
    """Opened once, when the server starts, for the handlers that have a parameter `database`; closed when it stops."""
    path = os.environ.get("NOTES_DB", ":memory:")
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        connection.execute(SCHEMA)
        yield Database(connection)


@io_route("/", methods=["POST"])
def create(request: Request, draft: Draft, database: Database) -> Response:
    """Write a new note."""
    with database.transaction() as sql:
        cursor = sql.execute("INSERT INTO notes (title, text) VALUES (?, ?)", (draft.title, draft.text))
    note = Note(cursor.lastrowid or 0, draft.title, draft.text)
    return Response(note, 201, {"location": f"{request.raw_path.rstrip('/')}/{note.id}"})


@io_route("/")
def newest(database: Database, limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20, search: str = "") -> list[Note]:
    """The newest notes, or those that hold the text `search`."""
    with database.transaction() as sql:
        rows = sql.execute(NEWEST, (search, limit)).fetchall()
    return [Note(*row) for row in rows]


@io_route("/{note_id}")
def read(note_id: NoteId, database: Database) -> Note:
    """One note."""
    with database.transaction() as sql:
        row = sql.execute("SELECT id, title, text FROM notes WHERE id = ?", (note_id,)).fetchone()
    if row is None:
        raise no_note(note_id)
    return Note(*row)


@io_route("/{note_id}", methods=["PUT"])
def replace(note_id: NoteId, draft: Draft, database: Database) -> Note:
    """Write a note anew."""
    with database.transaction() as sql:
        changed = sql.execute(
            "UPDATE notes SET title = ?, text = ? WHERE id = ?", (draft.title, draft.text, note_id)
        ).rowcount
    if not changed:
        raise no_note(note_id)
    return Note(note_id, draft.title, draft.text)


@io_route("/{note_id}", methods=["DELETE"])
def delete(note_id: NoteId, database: Database) -> None:
    """Throw a note away. Nothing is returned, so the answer is 204 No Content."""
    with database.transaction() as sql:
        deleted = sql.execute("DELETE FROM notes WHERE id = ?", (note_id,)).rowcount
    if not deleted:
        raise no_note(note_id)


def no_note(note_id: int) -> HTTPError:
    return HTTPError(404, f"There is no note {note_id}.")
