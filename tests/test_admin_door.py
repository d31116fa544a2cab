"""Who may ask the admin side: tokens, pages of other sites, names that point here, sockets that are taken."""

import os
import socket
import stat
from pathlib import Path

import anyio
import fanwire
import httpx
import pytest
from fanwire.admin import AdminConfig
from fanwire.admin.door import WRONG_MAX, is_own_name
from fanwire.admin.local import local_sockets
from fanwire.errors import ListenFailed
from support.administered import TOKEN, administered, asked, config

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def code(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


async def test_a_token_has_to_be_brought_and_be_the_right_one() -> None:
    async with administered(fanwire.Hub(admin=config(token=TOKEN))) as (_, client):
        for header in ({}, {"Authorization": ""}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}):
            response = await client.get("/api/stats", headers=header)
            assert await code(response) == (401, "no_token")
            assert response.headers["www-authenticate"].startswith("Bearer")
        for wrong in (TOKEN[:-1], TOKEN + "x", "x", TOKEN.upper(), "é" * 20):
            header = {b"Authorization": f"Bearer {wrong}".encode()}
            assert await code(await client.get("/api/stats", headers=header)) == (401, "wrong_token")
        for scheme in ("Bearer", "bearer", "BEARER"):
            response = await client.get("/api/stats", headers={"Authorization": f"{scheme} {TOKEN}"})
            assert response.status_code == 200
        assert (await client.get(f"/api/stats?token={TOKEN}")).status_code == 401
        assert (await client.get("/api/stats", headers={"Cookie": f"token={TOKEN}"})).status_code == 401
        assert (await client.get("/api/live?channel=stats")).status_code == 401
        assert (await client.get("/api/openapi.json")).status_code == 401


async def test_who_guesses_waits_and_nobody_else_does() -> None:
    async with administered(fanwire.Hub(admin=config(token=TOKEN))) as (serving, client):
        statuses: list[int] = []

        async def guess(number: int) -> None:
            async with asked(serving, f"{TOKEN[:-2]}{number:02}") as guesser:
                statuses.append((await guesser.get("/api/stats")).status_code)

        async with anyio.create_task_group() as tasks:
            for number in range(WRONG_MAX * 3):
                tasks.start_soon(guess, number)
            right = await client.get("/api/stats", headers={"Authorization": f"Bearer {TOKEN}"})
            assert right.status_code == 200
        assert set(statuses) <= {401, 429} and statuses.count(401) >= WRONG_MAX


async def test_a_page_of_another_site_sees_and_does_nothing() -> None:
    hub = fanwire.Hub(admin=config())
    async with administered(hub) as (_, client):
        foreign = {"Origin": "http://evil.example"}
        body = b'{"channel": "c", "data": 1}'
        response = await client.get("/api/clients", headers=foreign)
        assert response.status_code == 403 and "access-control-allow-origin" not in response.headers
        for headers in (
            {**foreign, "Content-Type": "application/json"},
            {**foreign, "Content-Type": "text/plain"},
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "multipart/form-data; boundary=x"},
            {},
            {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"},
            {"Content-Type": "application/json", "Origin": "null"},
        ):
            response = await client.post("/api/publish", content=body, headers=headers)
            assert response.status_code in (403, 415), headers
        preflight = {
            **foreign,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        response = await client.options("/api/publish", headers=preflight)
        assert "access-control-allow-origin" not in response.headers
        assert hub.stats().publications == 0


async def test_its_own_pages_may_ask_and_those_that_are_named() -> None:
    hub = fanwire.Hub(admin=config(origins=["https://admin.example"]))
    async with administered(hub) as (serving, client):
        (address,) = serving.admin
        port = address.rpartition(":")[2]
        for origin in (f"http://{address}", f"http://localhost:{port}", "https://admin.example"):
            response = await client.post("/api/publish", json={"channel": "c", "data": 1}, headers={"Origin": origin})
            assert response.status_code == 200, origin


async def test_without_a_token_a_name_that_points_here_is_refused() -> None:
    async with administered(fanwire.Hub(admin=config())) as (_, client):
        for host in ("evil.example", "evil.example:9001", "127.0.0.1.evil.example", "localhost.evil.example:1"):
            assert await code(await client.get("/api/stats", headers={"Host": host})) == (403, "foreign_host")
    async with administered(fanwire.Hub(admin=config(token=TOKEN)), TOKEN) as (_, client):
        assert (await client.get("/api/stats", headers={"Host": "admin.example"})).status_code == 200


def test_names_of_this_machine_are_addresses() -> None:
    assert all(map(is_own_name, ("127.0.0.1:1", "[::1]:80", "[::1]", "localhost", "LOCALHOST:9", "10.0.0.1")))
    assert not any(map(is_own_name, ("a", "a:1", "localhost.a", "[a]:1", "1.2.3", "::1.a")))


@pytest.mark.parametrize("address", ["0.0.0.0:9001", ":9001", "[::]:9001", "10.0.0.1:9001", "example.com:9001", "fd:3"])
def test_a_public_address_without_a_token_is_refused_at_the_start(address: str) -> None:
    with pytest.raises(ValueError, match=r"AdminConfig.token is missing: .* is not loopback"):
        fanwire.Hub(admin=address)
    assert AdminConfig(listen=address, token=TOKEN).token is not None


@pytest.mark.parametrize("token", ["short", "x" * 257, "with a space in the middle", "é" * 20])
def test_a_token_that_is_none_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match=r"AdminConfig.token must be") as raised:
        AdminConfig(listen="127.0.0.1:0", token=token)
    assert token not in str(raised.value)
    assert TOKEN not in repr(AdminConfig(token=TOKEN))


async def test_a_local_socket_is_for_this_user_alone_and_goes_with_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    async with administered(fanwire.Hub(admin=AdminConfig())) as (serving, client):
        (address,) = serving.admin
        path = Path(address.removeprefix("unix:"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.parent == tmp_path / "fanwire"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert list(local_sockets(os.environ)) == [(os.getpid(), path)]
        assert (await client.get("/api/stats")).status_code == 200
    assert not path.exists()


async def test_a_local_socket_that_was_left_is_taken_away_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    (tmp_path / "fanwire").mkdir(mode=0o700)
    left = tmp_path / "fanwire" / "1-00000000.admin"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(left))
    assert list(local_sockets(os.environ)) == []
    async with administered(fanwire.Hub(admin=AdminConfig())) as (serving, _):
        assert not left.exists()
        assert [f"unix:{path}" for _, path in local_sockets(os.environ)] == list(serving.admin)


async def test_an_address_that_is_taken_ends_the_start_and_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        hub = fanwire.Hub(admin=config(listen=f"127.0.0.1:{port}"))
        with pytest.raises(ListenFailed, match=str(port)):
            await hub.start("127.0.0.1:0")
    async with hub.serve("127.0.0.1:0") as serving:
        assert serving.admin == (f"127.0.0.1:{port}",)


async def test_a_unix_socket_that_is_taken_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    async with administered(fanwire.Hub(admin=config(listen=f"unix:{path}"))) as (_, client):
        with pytest.raises(ListenFailed, match=str(path)):
            await fanwire.Hub(admin=config(listen=f"unix:{path}")).start("127.0.0.1:0")
        assert (await client.get("/api/stats")).status_code == 200
    assert not path.exists()


async def test_of_several_processes_of_a_server_one_has_the_address_and_another_takes_its_place(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        address = f"127.0.0.1:{first.getsockname()[1]}"
        hub = fanwire.Hub(workers=f"unix:{tmp_path / 'hub'}", admin=config(listen=address))
        await hub.start("127.0.0.1:0")
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            with anyio.fail_after(60):
                while True:
                    try:
                        response = await client.get("/api/stats")
                        break
                    except httpx.ConnectError:
                        await anyio.lowlevel.checkpoint()
            assert response.status_code == 200
    finally:
        await hub.stop()
