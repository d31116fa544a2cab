"""A port before a server, by which connections come to it as a test has them come."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketStream


@asynccontextmanager
async def way(pass_on: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """The address of one, while it is there; a connection that is lost is nobody else's."""

    async def passing(client: SocketStream) -> None:
        try:
            await pass_on(client)
        except* (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            pass

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, passing)
        yield f"127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()
