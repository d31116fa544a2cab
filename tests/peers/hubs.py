"""The hubs that the suites of pysignalr and signalrcore are written against; ``run.py`` starts them.

pysignalr's is a `weatherHub`, signalrcore's a `chatHub` and an `authHub`; both have a login that gives out a token.
What they answer is read off the suites and their public servers; none of it is theirs. Called with the hubs' address
and the login's.
"""

import json
import sys
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import fanwire

TOKEN = "a-token-of-the-suites"
CREDENTIALS = {("test", "test"), ("test", "password")}

hub = fanwire.Hub(signalr_paths=("/chatHub",))
authorized = hub.endpoint("/authHub")
weather = hub.endpoint("/weatherHub")


@hub.authenticate
def who(request: fanwire.Request) -> str | None:
    """Whoever has the token; only `/authHub`, and who shows credentials, must have it."""
    bearer = (request.headers.get("authorization") or "").removeprefix("Bearer ") or request.query.get("access_token")
    if bearer == TOKEN:
        return "test"
    if bearer or request.path.casefold().startswith("/authhub"):
        raise fanwire.Refused("no such token", status=401)
    return None


async def send_to_all(client: fanwire.Client, user: str, message: str, path: str) -> None:
    """Clients.All.SendAsync("ReceiveMessage", user, message)."""
    hub.publish_to_all(fanwire.Arguments(user, message), event="ReceiveMessage", path=path)


@hub.method("SendMessage")
async def chat(client: fanwire.Client, user: str, message: str) -> None:
    """To all."""
    await send_to_all(client, user, message, "/chatHub")


@hub.method("DisconnectMe")
async def disconnect_me(client: fanwire.Client) -> None:
    """Tells all, then Context.Abort(): a suite waits for the telling."""
    hub.publish_to_all(f"{client.connection_id} Disconnected", event="ReceiveMessage", path="/chatHub")
    client.close()


@hub.method("ThrowException")
async def throw(client: fanwire.Client, message: str) -> None:
    """Tells all, then an exception that is not told in full."""
    hub.publish_to_all(message, event="ThrowExceptionCall", path="/chatHub")
    raise RuntimeError(message)


@hub.method("Counter")
async def counter(client: fanwire.Client, count: int, delay_ms: int) -> AsyncIterator[int]:
    """So many items."""
    for index in range(count):
        yield index
        await anyio.sleep(delay_ms / 1000)


@hub.method("UploadStream")
async def upload(client: fanwire.Client, items: AsyncIterator[str]) -> None:
    """Takes all."""
    async for _ in items:
        pass


@authorized.method("SendMessage")
async def to_all_authorized(client: fanwire.Client, message: str) -> None:
    """To all of the hub that asks for a token."""
    hub.publish_to_all(message, event="ReceiveMessage", path="/authHub")


@weather.method("SendMessage")
async def tell(client: fanwire.Client, user: str, message: str) -> None:
    """To all."""
    await send_to_all(client, user, message, "/weatherHub")


@weather.method("AddToGroup")
async def add_to_group(client: fanwire.Client, name: str) -> None:
    """Joins, and tells the group."""
    hub.subscribe(client, f"group:{name}")
    told = f"{client.connection_id} has joined the group {name}."
    hub.publish(f"group:{name}", fanwire.Arguments("System", told), event="ReceiveMessage")


@weather.method("SendMessageToGroup")
async def send_to_group(client: fanwire.Client, name: str, user: str, message: str) -> None:
    """To a group."""
    hub.publish(f"group:{name}", fanwire.Arguments(user, message), event="ReceiveMessage")


@weather.method("RemoveFromGroup")
async def remove_from_group(client: fanwire.Client, name: str) -> None:
    """Leaves, and tells the group."""
    hub.unsubscribe(client, f"group:{name}")
    told = f"{client.connection_id} has left the group {name}."
    hub.publish(f"group:{name}", fanwire.Arguments("System", told), event="ReceiveMessage")


@weather.method("SendWeatherForecast")
async def forecast(client: fanwire.Client, text: str) -> None:
    """To all."""
    hub.publish_to_all(text, event="ReceiveWeatherForecast", path="/weatherHub")


@weather.method("TriggerResultRequired")
async def trigger(client: fanwire.Client, user: str, message: str) -> None:
    """Asks the caller."""
    if await client.invoke("ResultRequired", "Reply this message") == "Reply message":
        client.send(fanwire.Arguments(user, message), event="SuccessReceivedMessage")


@weather.method("Countdown")
async def countdown(client: fanwire.Client, count: int) -> AsyncIterator[int]:
    """`count` to 1."""
    for index in range(count, 0, -1):
        yield index
        await anyio.sleep(0.01)


@weather.method("UploadStream")
async def add_up(client: fanwire.Client, items: AsyncIterator[int]) -> None:
    """The sum, to the caller."""
    total = 0
    async for item in items:
        total += item
    client.send(total, event="UploadComplete")


@weather.method("Echo")
async def echo(client: fanwire.Client, payload: str) -> str:
    """As it came."""
    return payload


@weather.method("Fail")
async def fail(client: fanwire.Client, reason: str) -> None:
    """Always raises."""
    raise fanwire.HubError(reason)


class Login(BaseHTTPRequestHandler):
    """Answers any POST of known credentials with the token."""

    def do_POST(self) -> None:
        """The login of both suites."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        is_known = (asked.get("username"), asked.get("password")) in CREDENTIALS
        body = json.dumps({"token": TOKEN} if is_known else {"message": "no"}).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    address, (host, _, port) = sys.argv[1], sys.argv[2].partition(":")
    threading.Thread(target=ThreadingHTTPServer((host, int(port)), Login).serve_forever, daemon=True).start()
    hub.run(address, drain_timeout=0.5, signalr_message_bytes_max=1 << 20)
