"""A connection to PostgreSQL that is made again when it is lost, and given up when the server does not answer.

Three rules:

*One unit of work, one time limit.* `Link.session` gives the connection for one unit of work. A server that does not
answer in time is treated as a lost connection: the socket is closed at once. asyncpg's own time limit would send a
cancel request first, and wait for a server that hangs.

*An error ends the connection.* Its transaction is rolled back with it, so no code here has to roll back.

*Lost is not failed.* `Lost` means that the outcome of the unit is unknown. Its user must read the outcome, or repeat
the unit in a way that has no second effect.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from ...core.job_errors import StoreError, StoreFull

CONNECT_SECONDS = 3.0
"""Time for a new connection. A server in the same network needs milliseconds."""
IDLE_TRANSACTION = "5s"
"""PostgreSQL ends a transaction that this process leaves open for so long, as when it is stopped by SIGSTOP: the rows
that it has locked must not keep other servers waiting."""
LOCK_TIMEOUT = "4s"
"""Longest wait for a row that another transaction has locked. All our transactions take milliseconds."""
SETTINGS = {
    "application_name": "tinysvc",
    "idle_in_transaction_session_timeout": IDLE_TRANSACTION,
    "lock_timeout": LOCK_TIMEOUT,
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",  # planning takes longer than these statements
    # Every statement here has an index that fits. The planner must take it also while its statistics are old, as after
    # 100,000 durable jobs were accepted within a minute.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

_LOST_CLASSES = ("08", "57P", "28")
"""SQLSTATE: the connection failed; the server stops, starts or crashed; it refuses the login."""
_LOST_STATES = frozenset(
    {
        "25006",  # read only: this server has become a standby
        "25P03",  # the transaction was idle for too long
        "25P02",  # the transaction has failed before
        "3D000",  # there is no such database (yet)
        "53300",  # too many connections
    }
)
_AGAIN = frozenset({"40001", "40P01", "55P03", "57014"})
"""SQLSTATE: serialization failure, deadlock, lock not available, query cancelled. Nothing was committed."""


class Lost(Exception):
    """The connection was lost: whether the last commit took place is unknown."""


class Again(Exception):
    """The transaction was rolled back because of another one. It can be repeated."""


def meaning(error: Exception) -> Exception:
    """Translate an error of asyncpg or of the operating system."""
    if isinstance(error, asyncpg.ClientConfigurationError):
        return ValueError(str(error))  # the URL is wrong
    state = getattr(error, "sqlstate", None)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if state is None or not isinstance(error, asyncpg.PostgresError):
        client_side = isinstance(error, OSError | EOFError | asyncpg.InterfaceError | asyncpg.InternalClientError)
        return Lost(text) if client_side or isinstance(error, TimeoutError) else error
    if state in _AGAIN:
        return Again(text)
    if state in _LOST_STATES or state.startswith(_LOST_CLASSES):
        return Lost(text)
    if state.startswith("53"):
        return StoreFull(f"PostgreSQL has no room: {text}")
    return StoreError(f"PostgreSQL refuses: {text}")


def safe_url(url: str) -> str:
    """The URL without user, password and parameters, for messages."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return "postgresql://..."


class Link:
    """One connection, used by one unit of work at a time."""

    def __init__(self, url: str, greet: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self._url = url
        self._greet = greet
        self._connection: Any = None
        self._turn = asyncio.Lock()
        self.pid = 0
        """The server's process behind the newest connection: notifications name it."""

    @asynccontextmanager
    async def session(self, seconds: float) -> AsyncIterator[Any]:
        """The connection, for one unit of work of at most `seconds`; a lost one is made again first.

        Raises:
            Lost: The connection was lost, or the server did not answer in time.
            Again: Another transaction was in the way.
            StoreError: The server refuses the statement.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(seconds):
                    if self._connection is None or self._connection.is_closed():
                        await self._connect()
                    yield self._connection
            except TimeoutError:
                self.drop()
                raise Lost(f"PostgreSQL did not answer within {seconds:.0f} s") from None
            except Exception as error:
                self.drop()
                raise meaning(error) from error
            except BaseException:
                self.drop()
                raise

    async def _connect(self) -> None:
        self._connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            server_settings=SETTINGS,
            target_session_attrs="read-write",
        )
        self.pid = self._connection.get_server_pid()
        if self._greet is not None:
            await self._greet(self._connection)

    def drop(self) -> None:
        """Close the socket at once. A running unit of work gets `Lost`."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def aclose(self) -> None:
        """Close the connection in good order; drop it if that takes too long."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                async with asyncio.timeout(1.0):
                    await connection.close()
            except (Exception, asyncio.CancelledError):
                connection.terminate()
                if isinstance(sys.exception(), asyncio.CancelledError):
                    raise


class Readers:
    """A few connections for reads, which do not wait for writes."""

    COUNT = 4

    def __init__(self, url: str) -> None:
        self._idle = [Link(url) for _ in range(self.COUNT)]
        self._all = tuple(self._idle)
        self._free = asyncio.Semaphore(self.COUNT)

    async def fetch(self, statement: str, *values: object, seconds: float = 5.0) -> list[Any]:
        """The rows of one statement. A lost connection is made again, within the time limit.

        Raises:
            StoreError: The server refuses the statement, or cannot be reached.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with self._free:
            link = self._idle.pop()  # the newest: the others stay unused while they are not needed
            try:
                while True:
                    try:
                        async with link.session(max(end - loop.time(), 0.05)) as connection:
                            return list(await connection.fetch(statement, *values))
                    except (Lost, Again) as error:
                        if loop.time() + 0.1 >= end:
                            raise StoreError(f"PostgreSQL cannot be read: {error}") from error
                    await asyncio.sleep(0.1)
            finally:
                self._idle.append(link)

    async def aclose(self) -> None:
        for link in self._all:
            await link.aclose()
