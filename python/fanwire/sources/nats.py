"""A subject of NATS as a source: what a stream of JetStream keeps of it, or, at most once, what is published there.

It needs the package ``nats-py``, which ``fanwire[nats]`` brings, and an event loop of asyncio.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import time
from typing import Any, ClassVar, Literal, get_args
from uuid import uuid4

import anyio

from fanwire.calls import check_text
from fanwire.logs import source_log
from fanwire.sources.source import BATCH, Batch, Entry, NoEntry, Reading, Source, entry_of, json_of

try:
    from nats.aio.client import Client
    from nats.errors import AuthorizationError, BadSubjectError, Error, InvalidUserCredentialsError
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig
    from nats.js.errors import BadRequestError, KeyNotFoundError, NotFoundError
except ImportError as error:
    raise ImportError(
        "fanwire.sources.nats needs the package nats-py: pip install 'fanwire[nats]'", name=error.name
    ) from error

__all__ = ["NatsSubject"]

Payload = Literal["entry", "data", "text", "bytes"]
"""What a message is: an object of JSON with the names of an entry, or the one of these names alone."""

WAIT_S = 2.0
"""So long a request waits for messages; then another is made, which notices that the connection is lost."""
CONNECT_TIMEOUT_S = 10
CLOSE_S = 2.0
PING_S = 3
PINGS_MAX = 2
FORGOTTEN_S = 300.0
"""What reads is forgotten by the server when it has asked for nothing for so long; then it is made anew."""
PLACES = "PREFIX_places"
UNHELPED = (AuthorizationError, InvalidUserCredentialsError, BadSubjectError, NotFoundError, BadRequestError)


class NatsSubject(Source):
    """Reads a subject, in the order of its stream. Several may read one, each with its place, under another name.

    With `stream` nothing is missed: the place is kept at the same server, in the bucket ``PREFIX_places``. Where there
    is none, it begins with what is in the stream. A stream that was deleted and made anew is read from its beginning;
    one of retention ``workqueue`` cannot be read. Without `stream` it is what is published while it is connected: at
    most once.

    Args:
        url: ``nats://HOST:PORT``, or ``tls://``, several with commas; `options` are passed on to ``nats.connect``.
        subject: with the wildcards of NATS, as ``odds.>``.
        stream: the name of the stream of JetStream that keeps it.
        payload: what a message is. ``entry``: an object of JSON that has the names of an entry. Else the message is the
            ``data`` (JSON), the ``text`` or the ``bytes`` of one, and without `channel` its subject is the channel.
        name: as of ``Source``; None: the subject.
        channel, batch: as of ``Source``.
        prefix: what the name of the bucket of places begins with.
    """

    kind: ClassVar[str] = "a subject of NATS"

    def __init__(
        self,
        url: str,
        subject: str,
        *,
        stream: str | None = None,
        payload: Payload = "entry",
        name: str | None = None,
        channel: str | None = None,
        batch: int = BATCH,
        prefix: str = "fanwire",
        **options: Any,
    ) -> None:
        self.subject = check_text("subject", subject, "a subject of NATS, a str")
        self.stream = None if stream is None else check_text("stream", stream, "the name of a stream, a str")
        if payload not in get_args(Payload):
            raise ValueError(f"payload must be one of {', '.join(get_args(Payload))}, not {payload!r}")
        super().__init__(subject if name is None else name, channel=channel, batch=batch)
        self._payload = payload
        self._servers = check_text("url", url, "the URL of a NATS server, a str").split(",")
        self._bucket = PLACES.replace("PREFIX", prefix)
        self._options = options

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Reading]:
        """Connected. Raises what the package ``nats-py`` does."""
        options: dict[str, Any] = {
            "allow_reconnect": False,  # what is under way then would be lost: it begins anew at its place
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "ping_interval": PING_S,
            "max_outstanding_pings": PINGS_MAX,
            "name": f"fanwire source {self.name}",
            "error_cb": self._tell,
            **self._options,
        }
        client = Client()
        try:
            await client.connect(self._servers, **options)
            yield await self._placed(client) if self.stream else await self._heard(client)
        finally:  # also what did not come to be has a socket
            with anyio.move_on_after(CLOSE_S, shield=True):
                await client.close()

    async def _tell(self, error: Exception) -> None:
        source_log.debug("source %s: %s", self.name, error)

    async def _heard(self, client: Any) -> Reading:
        subscription = await client.subscribe(self.subject)
        await client.flush(CONNECT_TIMEOUT_S)
        return SubjectReading(self, client, subscription)

    async def _placed(self, client: Any) -> Reading:
        """At the place that is kept, if it is one of this stream, else at its beginning."""
        assert self.stream is not None
        jetstream = client.jetstream()
        about = await jetstream.stream_info(self.stream)
        life, last = int(about.created.timestamp() * 1_000_000), about.state.last_seq
        try:
            places = await jetstream.key_value(self._bucket)
        except NotFoundError:
            kept_by = KeyValueConfig(bucket=self._bucket, replicas=about.config.num_replicas or 1)
            places = await jetstream.create_key_value(kept_by)
        key = key_of(self.name)
        behind = 0
        try:
            kept_life, kept = map(int, (await places.get(key)).value.decode().split("-"))
        except KeyNotFoundError:
            pass
        else:
            behind = min(kept, last) if kept_life == life else 0
            if behind != kept:
                was = f"has {last:,} messages at most" if kept_life == life else "was made anew"
                source_log.error(
                    "source %s: its place was %d; the stream %s: it begins at %d", self.name, kept, was, behind
                )
        consumer = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=behind + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=FORGOTTEN_S,
            mem_storage=True,
            num_replicas=1,
        )
        subscription = await jetstream.pull_subscribe(self.subject, stream=self.stream, config=consumer)
        return SubjectOfStream(self, client, subscription, places, key, life)

    def is_passing(self, error: Exception) -> bool:
        """Whether trying again may help."""
        if isinstance(error, UNHELPED) or "authorization" in str(error).lower():
            return False
        return isinstance(error, Error | OSError | TimeoutError)

    def number_of(self, place: str) -> float:
        """Its sequence in the stream."""
        return float(place.rpartition("-")[2])

    def entry(self, place: str, subject: str, data: bytes) -> Entry:
        """What a message is. Raises NoEntry."""
        if self._payload == "entry":
            values = json_of(data)
            if not isinstance(values, dict):
                raise NoEntry("is no object of JSON")
            return entry_of(place, values, self.channel)
        try:
            said = json_of(data) if self._payload == "data" else data.decode() if self._payload == "text" else data
        except UnicodeDecodeError as error:
            raise NoEntry(f"is no text: {error}") from error
        return entry_of(place, {self._payload: said}, self.channel or subject)


def key_of(name: str) -> str:
    """A name as a bucket has it: bytes that a key may not have are ``=`` and two hexadecimal digits."""
    return "".join(chr(one) if chr(one).isalnum() and one < 128 else f"={one:02X}" for one in name.encode())


class SubjectOfStream(Reading):
    """A stream that is read."""

    def __init__(self, source: NatsSubject, client: Any, subscription: Any, places: Any, key: str, life: int) -> None:
        self._source, self._client, self._subscription = source, client, subscription
        self._places, self._key, self._life = places, key, life
        self._taken = 0

    async def batches(self) -> AsyncIterator[Batch]:
        """What is in it behind the place, and then what comes."""
        while True:
            try:
                messages = await self._subscription.fetch(self._source.batch, timeout=WAIT_S)
            except TimeoutError:
                await self._subscription.consumer_info()  # there is nothing, or nobody who would say so
                continue
            batch = Batch()
            for message in messages:
                about = message.metadata
                self._taken += 1
                if about.sequence.consumer != self._taken:
                    raise ConnectionError(f"message {self._taken} of this connection was lost")
                place = f"{self._life}-{about.sequence.stream}"
                read = partial(self._source.entry, place, message.subject, message.data)
                batch.add(place, read, about.timestamp.timestamp())
            yield batch

    async def keep(self, place: str) -> None:
        """All up to here is published."""
        await self._places.put(self._key, place.encode())


class SubjectReading(Reading):
    """A subject that is heard: nothing keeps it."""

    def __init__(self, source: NatsSubject, client: Any, subscription: Any) -> None:
        self._source, self._client, self._subscription = source, client, subscription
        self._life, self._taken = uuid4().hex, 0

    async def batches(self) -> AsyncIterator[Batch]:
        """What comes."""
        while True:
            try:
                messages = [await self._subscription.next_msg(timeout=WAIT_S)]
            except TimeoutError:
                if self._client.is_closed:
                    raise ConnectionError("the connection was lost") from None
                continue
            waiting = min(self._subscription.pending_msgs, self._source.batch - 1)
            messages += [await self._subscription.next_msg(timeout=WAIT_S) for _ in range(waiting)]
            batch = Batch()
            for message in messages:
                self._taken += 1
                place = f"{self._life}-{self._taken}"
                batch.add(place, partial(self._source.entry, place, message.subject, message.data), time())
            yield batch

    async def keep(self, place: str) -> None:
        """Nothing is."""
