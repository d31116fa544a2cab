"""An outbox of PostgreSQL as a source: what a transaction publishes is a row that it writes.

It needs the package ``psycopg``, which ``fanwire[postgres]`` brings, and an event loop of asyncio.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar

import anyio

from fanwire.calls import check_text
from fanwire.sources.source import BATCH, Batch, Entry, Reading, Source, entry_of, json_of

try:
    import psycopg
    from psycopg import sql
except ImportError as error:
    raise ImportError(
        "fanwire.sources.postgres needs the package psycopg: pip install 'fanwire[postgres]'", name=error.name
    ) from error

__all__ = ["SCHEMA", "PostgresOutbox"]

LOOK_S = 1.0
"""So often it looks though nothing was notified: rows are held back while an older transaction runs."""
CONNECT_TIMEOUT_S = 10
COLUMNS = ("channel", "text", "bytes", "event", "key", "ttl", "keyframe", "remove")

SCHEMA = """\
CREATE TABLE fanwire_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY,
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    written timestamptz NOT NULL DEFAULT now(),
    channel text, data jsonb, text text, bytes bytea,
    event text, key text, ttl double precision, keyframe boolean, remove boolean,
    PRIMARY KEY (transaction, id)
);
CREATE TABLE fanwire_places (name text PRIMARY KEY, transaction xid8 NOT NULL, id bigint NOT NULL);
CREATE FUNCTION fanwire_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('fanwire_outbox', ''); RETURN NULL; END $$;
CREATE TRIGGER fanwire_outbox_notify AFTER INSERT ON fanwire_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION fanwire_outbox_notify();
"""
"""What has to be created once, by whoever owns the database."""


class PostgresOutbox(Source):
    """Reads the table ``fanwire_outbox`` of ``SCHEMA``: rows in the order of transactions, and in each of ``id``.

    A row is read when no transaction that began to write before its own is running any more: none can come before it.
    ``NOTIFY`` is a hint alone. Of several processes that run one source, one reads: it holds an advisory lock, and
    another takes over when its connection ends. The place is kept in ``fanwire_places``.

    Args:
        url: ``postgresql://…``, or what else libpq has.
        name, channel, batch: as of ``Source``.
        deletes: rows that were published are deleted. With several sources at one table, or to keep them: False.

    The columns of a row are ``channel``, one of ``data``, ``text`` and ``bytes``, and perhaps ``event``, ``key``,
    ``ttl``, ``keyframe`` and ``remove``, as ``Hub.publish`` has them.
    """

    kind: ClassVar[str] = "an outbox of PostgreSQL"

    def __init__(
        self,
        url: str,
        *,
        name: str = "outbox",
        channel: str | None = None,
        batch: int = BATCH,
        deletes: bool = True,
    ) -> None:
        super().__init__(name, channel=channel, batch=batch)
        self._url = check_text("url", url, "the URL of a PostgreSQL server, a str")
        self.deletes = deletes

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Reading]:
        """Connected, once no other process reads. Raises what the package ``psycopg`` does."""
        connection = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="fanwire"
        )
        async with connection:
            while True:
                lock = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
                found = await (await connection.execute(lock, [f"fanwire source {self.name}"])).fetchone()
                if found and found[0]:
                    break
                await anyio.sleep(LOOK_S)
            await connection.execute("LISTEN fanwire_outbox")
            kept = "SELECT transaction::text, id FROM fanwire_places WHERE name = %s"
            place = await (await connection.execute(kept, [self.name])).fetchone()
            yield OutboxReading(self, connection, place or ("0", 0))

    def is_passing(self, error: Exception) -> bool:
        """Whether trying again may help."""
        if isinstance(error, psycopg.OperationalError):
            return not isinstance(error, psycopg.errors.InvalidPassword)
        return isinstance(error, psycopg.InterfaceError | OSError)

    def entry(self, place: str, row: dict[str, Any]) -> Entry:
        """One of the table's. Raises NoEntry."""
        values = {name: row[name] for name in COLUMNS if row[name] is not None}
        if row["data"] is not None:
            values["data"] = json_of(row["data"])
        return entry_of(place, values, self.channel)


class OutboxReading(Reading):
    """A table that is read."""

    def __init__(self, source: PostgresOutbox, connection: Any, place: tuple[str, int]) -> None:
        self._source, self._connection = source, connection
        self._at = place

    async def batches(self) -> AsyncIterator[Batch]:
        """What is in it behind the place, and then what comes."""
        query = sql.SQL(
            "SELECT transaction::text AS transaction, id, data::text AS data,"
            " extract(epoch FROM written)::float8 AS written, {} FROM fanwire_outbox"
            " WHERE (transaction, id) > (%s::xid8, %s) AND transaction < pg_snapshot_xmin(pg_current_snapshot())"
            " ORDER BY transaction, id LIMIT %s"
        ).format(sql.SQL(", ").join(map(sql.Identifier, COLUMNS)))
        while True:
            async with self._connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
                await cursor.execute(query, [*self._at, self._source.batch])
                rows = await cursor.fetchall()
            if not rows:
                async for _ in self._connection.notifies(timeout=LOOK_S, stop_after=1):
                    pass
                continue
            batch = Batch()
            for row in rows:
                place = f"{row['transaction']}-{row['id']}"
                batch.add(place, partial(self._source.entry, place, row), row["written"])
            yield batch

    async def keep(self, place: str) -> None:
        """All up to here is published."""
        transaction, number = place.split("-")
        self._at = (transaction, int(number))
        async with self._connection.transaction():
            await self._connection.execute(
                "INSERT INTO fanwire_places VALUES (%s, %s::xid8, %s) ON CONFLICT (name)"
                " DO UPDATE SET transaction = excluded.transaction, id = excluded.id",
                [self._source.name, *self._at],
            )
            if self._source.deletes:
                gone = "DELETE FROM fanwire_outbox WHERE (transaction, id) <= (%s::xid8, %s)"
                await self._connection.execute(gone, list(self._at))
