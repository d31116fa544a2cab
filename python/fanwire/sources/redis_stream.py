"""A stream of Redis or Valkey as a source: ``XADD events * channel odds:7 data '{"home":1.85}'``.

It needs the package ``redis``, which ``fanwire[redis]`` brings.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar

from fanwire.calls import check_text
from fanwire.sources.source import BATCH, Batch, Entry, NoEntry, Reading, Source, entry_of, json_of

try:
    from redis import asyncio as redis
    from redis.exceptions import AuthenticationError, RedisError, ResponseError
except ImportError as error:
    raise ImportError(
        "fanwire.sources.redis_stream needs the package redis: pip install 'fanwire[redis]'", name=error.name
    ) from error

__all__ = ["RedisStream"]

BLOCK_MS = 5_000
"""So long a read waits for entries; then it asks again, so that a dead connection is noticed."""
SILENT_MAX_S = 10.0
"""A connection that has said nothing for so long is given up."""
TEXTS = ("channel", "text", "event", "key", "keyframe", "remove")


class RedisStream(Source):
    """Reads a stream by ``XREAD``. Several may read one stream, each with its place, under another name.

    The place is kept at the same server, in the key ``PREFIX:source:NAME``. Where there is none, it begins with what is
    in the stream. What was trimmed before it was read is gone: give ``XADD`` a ``MAXLEN`` that an hour fits in.

    Args:
        url: as ``redis.asyncio.Redis.from_url`` has it; `options` are passed on there.
        stream: the stream's key.
        name: as of ``Source``; None: the stream's.
        channel, batch: as of ``Source``.
        prefix: what the name of the place's key begins with.

    The fields of an entry are ``channel``, one of ``data`` (JSON), ``text`` and ``bytes``, and perhaps ``event``,
    ``key``, ``ttl``, ``keyframe`` and ``remove``, as ``Hub.publish`` has them.
    """

    kind: ClassVar[str] = "a stream of Redis"

    def __init__(
        self,
        url: str,
        stream: str,
        *,
        name: str | None = None,
        channel: str | None = None,
        batch: int = BATCH,
        prefix: str = "fanwire",
        **options: Any,
    ) -> None:
        self.stream = check_text("stream", stream, "the key of a stream, a str")
        super().__init__(stream if name is None else name, channel=channel, batch=batch)
        self._url = check_text("url", url, "the URL of a Redis or Valkey server, a str")
        self._key = f"{prefix}:source:{self.name}"
        self._options = options

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Reading]:
        """Connected. Raises what the package ``redis`` does."""
        options = {"socket_timeout": SILENT_MAX_S, "socket_connect_timeout": SILENT_MAX_S, **self._options}
        async with redis.Redis.from_url(self._url, **options) as client:
            kept: Any = await client.get(self._key)
            yield StreamReading(self, client, kept or b"0-0")

    def is_passing(self, error: Exception) -> bool:
        """Whether trying again may help."""
        return isinstance(error, RedisError | OSError) and not isinstance(error, AuthenticationError | ResponseError)

    def entry(self, place: str, fields: dict[bytes, bytes]) -> Entry:
        """One of the stream's. Raises NoEntry."""
        values: dict[str, Any] = {}
        for raw, value in fields.items():
            name = raw.decode(errors="replace")
            try:
                if name in TEXTS:
                    values[name] = value.decode()
                elif name == "ttl":
                    values[name] = float(value)
                else:
                    values[name] = json_of(value) if name == "data" else value
            except ValueError as error:
                raise NoEntry(f"has a {name} that is none: {error}") from error
        return entry_of(place, values, self.channel)


class StreamReading(Reading):
    """A stream that is read."""

    def __init__(self, source: RedisStream, client: Any, place: bytes) -> None:
        self._source, self._client = source, client
        self._at = place

    async def batches(self) -> AsyncIterator[Batch]:
        """What is in it behind the place, and then what comes."""
        source = self._source
        while True:
            found = await self._client.xread({source.stream: self._at}, count=source.batch, block=BLOCK_MS)
            streams = found.items() if isinstance(found, dict) else found or ()
            for _, entries in streams:
                batch = Batch()
                for raw, fields in entries if not isinstance(entries[0], list) else entries[0]:
                    place = raw.decode()
                    written_at = int(place.partition("-")[0]) / 1_000
                    batch.add(place, partial(source.entry, place, fields), written_at)
                yield batch

    async def keep(self, place: str) -> None:
        """All up to here is published."""
        self._at = place.encode()
        await self._client.set(self._source._key, self._at)
