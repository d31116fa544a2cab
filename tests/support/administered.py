"""A hub with an admin side, and somebody who asks it over a real socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fanwire
import httpx
from fanwire.admin import AdminConfig

TOKEN = "a-token-of-20-letters"


@asynccontextmanager
async def asked(serving: Any, token: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """Who asks the admin side of what is served."""
    (address, *_) = serving.admin
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:")) if address.startswith("unix:") else None
    base = "http://localhost" if transport else f"http://{address}"
    async with httpx.AsyncClient(
        base_url=base, headers=headers, timeout=60, trust_env=False, transport=transport
    ) as client:
        yield client


@asynccontextmanager
async def administered(hub: fanwire.Hub, token: str = "") -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    """The hub, which serves, and who asks."""
    async with hub.serve("127.0.0.1:0") as serving, asked(serving, token) as client:
        yield serving, client


def config(**options: Any) -> AdminConfig:
    """An admin side on a port of its own, and nowhere else."""
    return AdminConfig(**{"listen": "127.0.0.1:0", "local": False, **options})
