"""Peer: Litestar's channels in memory, or on a hub that each WebSocket is attached to; on uvicorn with uvloop."""

from argparse import Namespace
from typing import Any

from driver import drive_on_uvicorn, run, uvicorn_options
from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    backend: Any = MemoryChannelsBackend()
    if arguments.send == "attach":
        from fanwire.compat.litestar import HubChannelsBackend

        backend = HubChannelsBackend()
    plugin = ChannelsPlugin(backend=backend, channels=["c0"])
    here: set[Any] = set()

    async def heard(socket: Any) -> None:
        while (await socket.receive())["type"] == "websocket.receive":
            pass

    @websocket("/ws")
    async def endpoint(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        here.add(socket)
        if arguments.send == "attach":
            socket.scope["extensions"]["fanwire"]["attach"](["c0"])  # type: ignore[typeddict-item]
            await heard(socket)
        else:
            async with plugin.start_subscription(["c0"]) as subscriber, subscriber.run_in_background(socket.send_text):
                await heard(socket)
        here.discard(socket)

    def publish(channel: str, text: str) -> None:
        plugin.publish(text, channel)

    app = Litestar([endpoint], plugins=[plugin])
    await drive_on_uvicorn(app, arguments, publish, lambda: len(here))


if __name__ == "__main__":
    parser = uvicorn_options(__doc__ or "")
    parser.add_argument("--send", choices=["plugin", "attach"], default="plugin", help="how a text is sent")
    run(main(parser.parse_args()))
