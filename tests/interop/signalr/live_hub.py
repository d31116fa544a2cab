"""The reference's LiveHub, as a fanwire hub: the same methods, paths and tokens.

`python live_hub.py HOST:PORT [--keepalive S] [--client-timeout S] [--handshake-timeout S]`
"""

import sys
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import anyio
import fanwire
import jwt
import msgspec

KEY = "a key for tests, known to everyone, 32+ bytes"
NAME = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

hub = fanwire.Hub(signalr_paths=("/live", "/members"), drain_timeout=0.5)
newest: dict[str, dict[str, Any]] = {}


def named(client: fanwire.Client, **values: Any) -> dict[str, Any]:
    """Names as .NET writes them: camelCase in JSON, PascalCase in MessagePack."""
    if client.hub_protocol == "json":
        return values
    return {name[0].upper() + name[1:]: value for name, value in values.items()}


def value(object: dict[str, Any], name: str) -> Any:
    """A member whose name is compared without case."""
    return next(value for key, value in object.items() if key.casefold() == name)


@hub.authenticate
def who(request: fanwire.Request) -> fanwire.Identity:
    """The user of the token, which the members' hub insists on, and what else ``who_am_i`` tells."""
    headers = {name: request.headers.get(name) for name in ("x-forwarded-for", "user-agent", "x-custom")}
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    token = bearer or request.query.get("access_token", "")
    try:
        claims = jwt.decode(token, KEY, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        if request.path.startswith("/members"):
            raise fanwire.Refused("", status=401) from None
        return fanwire.Identity(None, headers)
    return fanwire.Identity(str(claims.get("nameid") or claims.get(NAME)), headers)


def user_of(client: fanwire.Client) -> str | None:
    """The user's name."""
    return client.identity.id if client.identity else None


@hub.method("Subscribe")
async def subscribe(client: fanwire.Client, match: str) -> dict[str, Any]:
    """Watch a match."""
    if match.startswith("closed"):
        raise fanwire.HubError(f"no such match: {match}")
    if match.startswith("secret") and user_of(client) is None:
        raise fanwire.HubError("log in first")
    if match.startswith("slow"):
        await anyio.sleep(1)
    hub.subscribe(client, f"match:{match}")
    odds = named(client, match=match, s=0, t=0, home=1.5, draw=3.5, away=6.5, pad=None)
    client.send(odds, event="Snapshot")
    return odds


@hub.method("Unsubscribe")
def unsubscribe(client: fanwire.Client, match: str) -> bool:
    """Watch it no longer; whether it was watched."""
    was = f"match:{match}" in client.channels
    hub.unsubscribe(client, f"match:{match}")
    return was


@hub.method("Ticks")
async def ticks(client: fanwire.Client, match: str, every_ms: int) -> AsyncIterator[int]:
    """The newest number of a match, again and again."""
    while True:
        yield 0
        await anyio.sleep(every_ms / 1000)


@hub.method("Add")
def add(client: fanwire.Client, a: Int32, b: Int32) -> int:
    return a + b


@hub.method("EchoText")
def echo_text(client: fanwire.Client, text: str | None) -> str | None:
    return text


@hub.method("EchoNumber")
def echo_number(client: fanwire.Client, n: float) -> float:
    return n


@hub.method("EchoBytes")
def echo_bytes(client: fanwire.Client, data: bytes) -> bytes:
    return data


@hub.method("EchoEverything")
def echo_everything(client: fanwire.Client, everything: dict[str, Any]) -> dict[str, Any]:
    """As .NET gives back what it has read into a class: every member, in the class's order."""
    given = {key.casefold(): item for key, item in everything.items()}
    names = ("text", "int", "long", "double", "bool", "null", "ints", "bytes", "at", "id", "map", "inner")
    return named(client, **{name: given.get(name, datetime.min if name == "at" else None) for name in names})


@hub.method("Nothing")
def nothing(client: fanwire.Client) -> None: ...


@hub.method("Fail")
def fail(client: fanwire.Client, text: str) -> str | None:
    raise fanwire.HubError(text)


@hub.method("Crash")
def crash(client: fanwire.Client) -> str | None:
    raise RuntimeError("a secret of the server's that no client may see")


@hub.method("Slow")
async def slow(client: fanwire.Client, ms: int) -> int:
    await anyio.sleep(ms / 1000)
    return ms


@hub.method("ConnectionId")
def connection_id(client: fanwire.Client) -> str | None:
    return client.connection_id


@hub.method("WhoAmI")
def who_am_i(client: fanwire.Client) -> dict[str, Any]:
    """What the hub knows of the caller."""
    assert client.identity is not None
    headers = client.identity.claims
    return named(
        client,
        user=client.identity.id,
        transport=client.transport,
        forwardedFor=headers["x-forwarded-for"],
        userAgent=headers["user-agent"],
        custom=headers["x-custom"],
    )


@hub.method("PlaceBet")
async def place_bet(client: fanwire.Client, bet: dict[str, Any]) -> dict[str, Any]:
    """A receipt, and a little later the same to the caller alone."""
    if value(bet, "stake") <= 0:
        raise fanwire.HubError("the stake must be positive")
    receipt = named(
        client, bet=uuid.uuid4().hex, user=user_of(client), match=value(bet, "match"), stake=float(value(bet, "stake"))
    )
    tasks.start_soon(settle, client, receipt)
    return receipt


async def settle(client: fanwire.Client, receipt: dict[str, Any]) -> None:
    await anyio.sleep(0.05)
    client.send(fanwire.Arguments(receipt, True), event="BetSettled")


@hub.method("Count")
async def count(client: fanwire.Client, n: int, delay_ms: int) -> AsyncIterator[int]:
    """The numbers below n."""
    for number in range(n):
        yield number
        if delay_ms > 0:
            await anyio.sleep(delay_ms / 1000)


@hub.method("CountByChannel")
async def count_by_channel(client: fanwire.Client, n: int) -> AsyncIterator[int]:
    """The numbers below n, at once."""
    for number in range(n):
        yield number


@hub.method("CountThenFail")
async def count_then_fail(client: fanwire.Client, n: int) -> AsyncIterator[int]:
    """The numbers below n, and then an error."""
    for number in range(n):
        yield number
    raise fanwire.HubError(f"failed after {n}")


@hub.method("Sum")
async def sum_of(client: fanwire.Client, numbers: AsyncIterator[int]) -> int:
    """What the client streams, added up."""
    total = 0
    async for number in numbers:
        total += number
    return total


@hub.method("Upper")
async def upper(client: fanwire.Client, texts: AsyncIterator[str]) -> AsyncIterator[str]:
    """What the client streams, in capitals."""
    async for text in texts:  # as .NET does it, one letter stays one letter
        yield "".join(letter.upper() if len(letter.upper()) == 1 else letter for letter in text)


@hub.method("AskMe")
async def ask_me(client: fanwire.Client, question: str) -> str:
    """What the caller answers."""
    return f"you said {await client.invoke('Question', question)}"


@hub.method("Announce")
def announce(client: fanwire.Client, text: str) -> None:
    hub.publish_to_all(text, event="Announcement", path="/live")


@hub.method("TellUser")
def tell_user(client: fanwire.Client, user: str, text: str) -> None:
    hub.publish_to_user(user, text, event="Message")


@hub.method("TellOthers")
def tell_others(client: fanwire.Client, text: str) -> None:
    hub.publish_to_all(text, event="Message", path="/live", exclude=client)


@hub.method("ManyArguments")
def many_arguments(client: fanwire.Client) -> None:
    bet = named(client, match="m", stake=1.25, pick="1")
    client.send(fanwire.Arguments(1, "two", 3.5, True, None, [4, 5], bet), event="Many")


@hub.method("Goodbye")
def goodbye(client: fanwire.Client) -> None:
    client.close()


async def main(address: str, *words: str) -> None:
    """Serve until the process is ended."""
    global tasks
    pairs = zip(words[::2], words[1::2], strict=True)
    times: Any = {f"signalr_{name.removeprefix('--').replace('-', '_')}": float(value) for name, value in pairs}
    async with anyio.create_task_group() as tasks, hub.serve(address, **times) as serving:
        print(serving.address, flush=True)
        await anyio.sleep_forever()


tasks: anyio.abc.TaskGroup

if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
