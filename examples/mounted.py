"""A hub on a FastAPI program's own port: `python examples/mounted.py`, then see http://127.0.0.1:8080/.

Each page shows what is posted: `curl http://127.0.0.1:8080/goals/7 -H 'Authorization: Bearer editor' --json '"1-0"'`.
"""

import socket
import sys
from typing import Annotated

import fanwire
import uvicorn
from fastapi import Body, Depends, FastAPI, Header, HTTPException
from fastapi.responses import HTMLResponse

hub = fanwire.Hub({"goals": fanwire.Channel(history=20)})
app = FastAPI(lifespan=hub.lifespan)
app.mount("/live", hub.asgi())


def editor(authorization: Annotated[str, Header()] = "") -> str:
    """Who may post; a real program asks its users for more than a word."""
    if authorization != "Bearer editor":
        raise HTTPException(401, "only an editor may")
    return "editor"


@app.post("/goals/{match}")
def goal(match: str, score: Annotated[str, Body()], by: Annotated[str, Depends(editor)]) -> int:
    return hub.publish("goals", {"match": match, "score": score, "by": by}).offset


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return """<!doctype html><title>goals</title><ul></ul><script>
    new EventSource("/live/events?channel=goals&start=history").onmessage = ({data}) => {
      const line = document.createElement("li"), {match, score} = JSON.parse(data)
      if (match) document.querySelector("ul").append(Object.assign(line, {textContent: `${match}: ${score}`}))
    }</script>"""


def main(address: str = "127.0.0.1:8080") -> None:
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) as listening:
        print(f"http://{host}:{listening.getsockname()[1]}/", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listening])


main(*sys.argv[1:])
