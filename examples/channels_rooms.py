"""Rooms in a Django program with Channels: `python examples/channels_rooms.py`, then open the page that it names.

A whole project in one file: settings, the consumer, two views, and what serves them.
"""

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from fanwire.compat.django_channels import FanwireConsumer

PAGE = Path(__file__).parent / "channels_rooms" / "index.html"

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="from the environment",
    CHANNEL_LAYERS={"default": {"BACKEND": "fanwire.compat.django_channels.ChannelLayer"}},
)


class Room(FanwireConsumer, AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        self.room = f"room.{self.scope['url_route']['kwargs']['room']}"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.channel_layer.group_send(self.room, in_a_room(content))

    async def room_message(self, event: dict[str, Any]) -> None:
        await self.send_json(event["json"])


def in_a_room(content: Any) -> dict[str, Any]:
    return {"type": "fanwire.send", "json": content}


def page(request: HttpRequest) -> FileResponse:
    return FileResponse(PAGE.open("rb"), content_type="text/html; charset=utf-8")


@csrf_exempt
@require_POST
def tell(request: HttpRequest, room: str) -> HttpResponse:
    message = {"by": "the program", "text": request.body.decode()}
    async_to_sync(get_channel_layer().group_send)(f"room.{room}", in_a_room(message))
    return HttpResponse(status=204)


urlpatterns = [path("", page), path("tell/<slug:room>", tell)]
websockets = AllowedHostsOriginValidator(URLRouter([path("rooms/<slug:room>", Room.as_asgi())]))


def main(address: str = "127.0.0.1:8000") -> None:
    app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": websockets})
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) as listening:
        print(f"http://{host}:{listening.getsockname()[1]}/", flush=True)
        config = uvicorn.Config(app, ws="fanwire.uvicorn:Protocol", lifespan="off", log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
