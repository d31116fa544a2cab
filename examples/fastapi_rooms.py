"""A chat with a login in FastAPI: `python examples/fastapi_rooms.py` prints an address for a WebSocket client."""

import socket
import sys
from typing import Annotated

import jwt
import uvicorn
from fanwire.fastapi import ConnectionManager
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

SECRET = "from the environment, and of 32 bytes at least"

app = FastAPI()
manager = ConnectionManager()


def signed_in(token: str = "") -> str:
    try:
        return str(jwt.decode(token, SECRET, algorithms=["HS256"])["sub"])
    except (jwt.InvalidTokenError, KeyError):
        raise WebSocketException(1008, "sign in first") from None


@app.websocket("/ws")
async def chat(websocket: WebSocket, user: Annotated[str, Depends(signed_in)]) -> None:
    await manager.connect(websocket)
    try:
        while True:
            text = await websocket.receive_text()
            await manager.send_personal_message(f"You wrote: {text}", websocket)
            await manager.broadcast(f"{user}: {text}")
    except WebSocketDisconnect:
        manager.disconnect(websocket)
        await manager.broadcast(f"{user} left")


def main(address: str = "127.0.0.1:8000") -> None:
    host, _, port = address.rpartition(":")
    token = jwt.encode({"sub": "ann"}, SECRET)
    with socket.create_server((host, int(port))) as listening:
        print(f"ws://{host}:{listening.getsockname()[1]}/ws?token={token}", flush=True)
        config = uvicorn.Config(app, ws="fanwire.uvicorn:Sansio", log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
