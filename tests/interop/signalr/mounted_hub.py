"""The hub of `live_hub` inside a Starlette application: `python mounted_hub.py HOST:PORT`."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import live_hub
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """The hub's, with the tasks of its methods; says that it serves."""
    async with anyio.create_task_group() as live_hub.tasks, live_hub.hub.lifespan():
        print(ADDRESS, flush=True)
        yield
        live_hub.tasks.cancel_scope.cancel()


ADDRESS = sys.argv[1]
HOST, _, PORT = ADDRESS.rpartition(":")
app = Starlette(lifespan=lifespan, routes=[Mount("/app", live_hub.hub.asgi())])

if __name__ == "__main__":
    uvicorn.run(app, host=HOST, port=int(PORT), log_config=None)
