"""The tables of durable jobs in PostgreSQL, and the check that they fit this service.

    tinysvc_jobs           one row for each durable job. `record` is the truth (records.py, as msgpack);
                           the columns beside it repeat what an index needs
    tinysvc_job_contents   saved values and results
    tinysvc_job_counts     durable jobs by route and state: 100,000 rows are not counted for each page of a list
    tinysvc_job_ticks      the newest tick of each schedule
    tinysvc_job_servers    the server processes, each with the end of its lease
    tinysvc_job_store      version of the tables, name of the service

They are made in the first schema of `search_path`; `postgresql://host/db?search_path=other` chooses another one.
"""

from __future__ import annotations

from typing import Any

from ...core.errors import ConfigurationError

VERSION = 1
"""Version of these tables."""

COUNT_SLOTS = 16
"""Each server process counts in one of so many rows, because two that change one row wait for each other."""

_TABLES = """
CREATE TABLE tinysvc_job_store (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE tinysvc_jobs (
    id text PRIMARY KEY,
    seq bigserial NOT NULL,
    route text NOT NULL,
    path text NOT NULL,
    state text NOT NULL,
    priority integer NOT NULL,
    due double precision NOT NULL,
    key text NOT NULL,
    owner text NOT NULL,
    expires double precision,
    expired boolean NOT NULL,
    record bytea NOT NULL,
    request bytea NOT NULL,
    body bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX tinysvc_jobs_queue ON tinysvc_jobs (route, priority DESC, due, seq) WHERE state = 'queued';
CREATE INDEX tinysvc_jobs_due ON tinysvc_jobs (due) WHERE state = 'scheduled';
CREATE INDEX tinysvc_jobs_owner ON tinysvc_jobs (owner) WHERE owner <> '';
CREATE INDEX tinysvc_jobs_expires ON tinysvc_jobs (expires) WHERE expires IS NOT NULL;
CREATE INDEX tinysvc_jobs_state ON tinysvc_jobs (route, state, seq) WHERE NOT expired;
CREATE INDEX tinysvc_jobs_path ON tinysvc_jobs (path, seq) WHERE NOT expired;
CREATE UNIQUE INDEX tinysvc_jobs_key ON tinysvc_jobs (route, key) WHERE key <> '';
CREATE TABLE tinysvc_job_contents (
    id text NOT NULL, kind text NOT NULL, content bytea NOT NULL, PRIMARY KEY (id, kind)
);
ALTER TABLE tinysvc_job_contents ALTER content SET STORAGE EXTERNAL;
CREATE TABLE tinysvc_job_counts (
    slot integer NOT NULL, route text NOT NULL, state text NOT NULL, number bigint NOT NULL,
    PRIMARY KEY (slot, route, state)
) WITH (fillfactor = 50);
CREATE TABLE tinysvc_job_ticks (name text PRIMARY KEY, tick double precision NOT NULL);
CREATE TABLE tinysvc_job_servers (owner text PRIMARY KEY, lease_end timestamptz NOT NULL) WITH (fillfactor = 50);
"""

_LOCK = 0x74696E79737663
"""Key of the advisory lock under which the tables are made: "tinysvc" in ASCII."""


async def prepare(connection: Any, service: str, where: str) -> str:
    """Make the tables unless they are there, and check them. Returns the channel of notifications.

    Args:
        connection: A connection of asyncpg.
        service: Name of the service, which the tables belong to. "": any; a tool asks.
        where: The store, for messages.

    Raises:
        ConfigurationError: The tables are of a newer version, or belong to another service.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if await connection.fetchval("SELECT to_regclass('tinysvc_job_store')") is None:
            await connection.execute(_TABLES)
            await connection.execute("INSERT INTO tinysvc_job_store VALUES ('version', $1)", str(VERSION))
        version = await connection.fetchval("SELECT value FROM tinysvc_job_store WHERE name = 'version'")
        if int(version) > VERSION:
            raise ConfigurationError(
                f"{where} was written by a newer tinysvc: its tables have version {version}, expected at most "
                f"{VERSION}. Nothing was changed. Install that version, or name another store with --jobs."
            )
        if service:
            await connection.execute(
                "INSERT INTO tinysvc_job_store VALUES ('service', $1) ON CONFLICT (name) DO NOTHING", service
            )
        owner = await connection.fetchval("SELECT value FROM tinysvc_job_store WHERE name = 'service'")
        if service and owner != service:
            raise ConfigurationError(
                f"{where} holds the durable jobs of the service {owner!r}, not of {service!r}. Nothing was changed. "
                f"Name another database with --jobs, or another schema of this one: {where}?search_path=NAME."
            )
        table = await connection.fetchval("SELECT 'tinysvc_jobs'::regclass::oid::bigint")
        return f"tinysvc_jobs_{table}"
