"""What may be repeated is done once."""

import anyio
import fanwire
import httpx
import pytest
from fanwire.admin.once import KEPT_S, KEYS_MAX, Once
from fanwire.admin.problems import Problem
from support.administered import administered, config

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_repetition_publishes_nothing_and_gets_the_first_answer() -> None:
    hub = fanwire.Hub(admin=config())
    async with administered(hub) as (_, client):

        async def publish(key: str, data: object) -> httpx.Response:
            body = {"channel": "c", "data": data}
            return await client.post("/api/publish", json=body, headers={"Idempotency-Key": key})

        first, again, other = await publish("k", 1), await publish("k", 1), await publish("l", 1)
        assert first.json() == again.json() != other.json()
        reused = await publish("k", 2)
        assert (reused.status_code, reused.json()["code"]) == (422, "key_reused")
        assert hub.stats().publications == 2
        for key in ("", "a b", "x" * 256):
            assert (await publish(key, 1)).json()["code"] == "bad_request"
        many = {"publications": [{"channel": "c", "data": 1}] * 3}
        for _ in range(2):
            response = await client.post("/api/publish_many", json=many, headers={"Idempotency-Key": "m"})
            assert len(response.json()["positions"]) == 3
        assert hub.stats().publications == 5
        broken = {"channel": "c*", "data": 1}
        for _ in range(2):
            response = await client.post("/api/publish", json=broken, headers={"Idempotency-Key": "n"})
            assert response.json()["code"] == "invalid_channel"


async def test_one_that_is_at_work_is_not_begun_again() -> None:
    once, gate, began = Once(), anyio.Event(), anyio.Event()

    async def do() -> bytes:
        began.set()
        await gate.wait()
        return b"done"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(once.answer, "k", "/p", b"", do)
        await began.wait()
        with pytest.raises(Problem) as raised:
            await once.answer("k", "/p", b"", do)
        assert raised.value.code == "key_in_use"
        gate.set()
    assert await once.answer("k", "/p", b"", do) == b"done"


async def test_what_failed_may_be_tried_again_and_old_keys_are_forgotten() -> None:
    now = 0.0
    once, calls = Once(lambda: now), 0

    async def do() -> bytes:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("not now")
        return b"x"

    with pytest.raises(ValueError, match="not now"):
        await once.answer("k", "/p", b"", do)
    assert await once.answer("k", "/p", b"", do) == await once.answer("k", "/p", b"", do) == b"x"
    assert calls == 2
    now = KEPT_S + 1
    await once.answer("k", "/p", b"other", do)
    assert calls == 3
    for number in range(KEYS_MAX + 10):
        await once.answer(f"k{number}", "/p", b"", do)
    assert len(once._known) <= KEYS_MAX
