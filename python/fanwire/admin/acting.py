"""What an operator does: publish, send, disconnect, subscribe. A client of another worker is that one's."""

from typing import Any

from fanwire._engine import may_be_sent
from fanwire.admin.desk import Desk
from fanwire.admin.ids import client_of, position_of, position_text
from fanwire.admin.payloads import data_of
from fanwire.admin.problems import Problem
from fanwire.admin.shapes import (
    DisconnectAnswer,
    DisconnectBody,
    Nothing,
    PublishAnswer,
    PublishBody,
    PublishManyAnswer,
    PublishManyBody,
    SendBody,
    SubscribeBody,
    UnsubscribeBody,
)
from fanwire.calls import check_channel
from fanwire.client import Client
from fanwire.errors import ClientGone
from fanwire.to import ToUser


class Acting:
    """What the endpoints do that change something."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.on("act", self._act_here)

    async def publish(self, body: PublishBody) -> PublishAnswer:
        """One publication."""
        return PublishAnswer(await self._published(body))

    async def publish_many(self, body: PublishManyBody) -> PublishManyAnswer:
        """One after another; all are looked at before the first is published."""
        for one in body.publications:
            self._check(one)
        publications = [self._publish(one) for one in body.publications]
        return PublishManyAnswer([await self._place(one) for one in publications])

    async def _published(self, body: PublishBody) -> str | None:
        self._check(body)
        return await self._place(self._publish(body))

    def _check(self, body: PublishBody) -> None:
        if (body.channel is None) == (body.user is None):
            raise Problem("invalid_value", "a publication names a channel or a user, one of them")
        if body.channel is not None:
            check_channel(body.channel)

    def _publish(self, body: PublishBody) -> tuple[Any, bool]:
        target: Any = body.channel if body.user is None else ToUser(body.user)
        data = data_of(body.data)
        terms = {"key": body.key, "ttl": body.ttl, "keyframe": body.keyframe, "tags": body.tags}
        given: dict[str, Any] = {name: value for name, value in terms.items() if value}
        return self._desk.hub.publish(target, data, event=body.event, **given), body.channel is not None

    async def _place(self, published: tuple[Any, bool]) -> str | None:
        publication, has_place = published
        return position_text(await publication) if has_place else None

    async def send(self, body: SendBody) -> Nothing:
        """A message to one client."""
        return await self._act(body.client, {"do": "send", "data": body.data, "event": body.event})

    async def subscribe(self, body: SubscribeBody) -> Nothing:
        """Have a client watch a channel; nobody else is asked whether it may."""
        channel = check_channel(body.channel)
        if body.since is not None:
            position_of(body.since)
        message = {"do": "subscribe", "channel": channel, "since": body.since, "start": body.start}
        return await self._act(body.client, message)

    async def unsubscribe(self, body: UnsubscribeBody) -> Nothing:
        """Have it watch it no more."""
        return await self._act(body.client, {"do": "unsubscribe", "channel": check_channel(body.channel)})

    async def disconnect(self, body: DisconnectBody) -> DisconnectAnswer:
        """Close a client, or all connections of a user."""
        if (body.client is None) == (body.user is None):
            raise Problem("invalid_value", "name a client or a user, one of them")
        if not may_be_sent(body.code):
            raise Problem("invalid_value", f"code {body.code} may not be sent (RFC 6455 §7.4)")
        if body.client is not None:
            await self._act(body.client, {"do": "disconnect", "code": body.code, "reason": body.reason})
            return DisconnectAnswer(1)
        assert body.user is not None
        closed = self._desk.hub.disconnect_user(body.user, body.code, body.reason)
        return DisconnectAnswer(None if self._desk.others else closed)

    async def _act(self, client: str, message: dict[str, Any]) -> Nothing:
        worker, connection = client_of(client, self._desk.number)
        answer = await self._desk.ask(worker, "act", {**message, "connection": connection})
        if answer is None:
            raise Problem("no_such_client", f"no client {client} is connected")
        if answer:
            raise Problem("invalid_value", answer)
        return Nothing()

    async def _act_here(self, message: dict[str, Any]) -> str | None:
        """Do it; gives what is wrong with it, or nothing; None where there is no such client."""
        connection = message["connection"]
        seen = await self._desk.in_thread(lambda: self._desk.look.of([connection]))
        if not seen or seen[0]["is_adopted"]:
            return None
        client = self._desk.pump.client_of(connection) or Client(connection, self._desk.life.link)
        hub = self._desk.hub
        try:
            match message["do"]:
                case "send":
                    client.send(data_of(message["data"]), event=message["event"])
                case "disconnect":
                    client.close(message["code"], message["reason"])
                case "subscribe":
                    since = None if message["since"] is None else position_of(message["since"])
                    hub.subscribe(client, message["channel"], since=since, start=message["start"])
                case "unsubscribe":
                    hub.unsubscribe(client, message["channel"])
        except ClientGone:
            return None
        except (TypeError, ValueError) as error:
            return str(error) or type(error).__name__
        return ""
