"""Peer: picows on uvloop, as its documentation does it: a listener for each client, ``transport.send`` in a loop."""

from argparse import Namespace

from driver import Watchers, channels_of, drive, options, run
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


async def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    watchers = Watchers()

    class Watching(WSListener):
        """One client and what it watches."""

        def __init__(self, channels: list[str]) -> None:
            self.channels = channels

        def on_ws_connected(self, transport: WSTransport) -> None:
            watchers.add(transport, self.channels)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            watchers.discard(transport, self.channels)

    def accept(request: WSUpgradeRequest) -> WSListener:
        return Watching(channels_of(request.path.decode()))

    def publish(channel: str, text: str) -> None:
        payload = text.encode()
        for transport in watchers.of(channel):
            transport.send(WSMsgType.TEXT, payload)

    await ws_create_server(accept, "127.0.0.1", arguments.port, backlog=4096, websocket_handshake_timeout=60)
    await drive(publish, lambda: watchers.count, arguments.port)


if __name__ == "__main__":
    run(main(options(__doc__ or "").parse_args()))
