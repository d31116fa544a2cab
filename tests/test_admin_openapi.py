"""The admin side against its own OpenAPI document, by schemathesis: what it takes, answers and refuses."""

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import fanwire
import httpx
import msgspec
import pytest
from fanwire.admin.openapi import document
from fanwire.admin.table import ENDPOINTS, LIVE
from hypothesis import HealthCheck, Phase, given, settings
from support.administered import config
from support.raw import open_socket, read_head

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: it is in the test group")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
EXAMPLES = 25
"""Of each operation: bad ones and good ones."""


class Served:
    """A hub with an admin side, a client and a few channels, in a thread of its own."""

    def __init__(self) -> None:
        self.address = ""
        self._is_there = threading.Event()
        self._thread = threading.Thread(target=lambda: anyio.run(self._main))
        self._end: Any = None

    async def _main(self) -> None:
        self._over, self._token = anyio.Event(), anyio.lowlevel.current_token()
        channels = {"room:*": fanwire.Channel(presence=True, history=10), "odds:*": fanwire.Channel(policy="latest")}
        hub = fanwire.Hub(channels, admin=config())
        hub.authenticate(lambda request: fanwire.Identity("anna"))
        async with hub.serve("127.0.0.1:0") as serving:
            (self.address,) = serving.admin
            hub.publish("room:1", {"a": 1})
            client = await anyio.to_thread.run_sync(open_socket, serving.address)
            with client:
                client.sendall(b"GET /events?channel=room:1 HTTP/1.1\r\nHost: a\r\n\r\n")
                await anyio.to_thread.run_sync(read_head, client)
                self._is_there.set()
                await self._over.wait()

    def __enter__(self) -> "Served":
        self._thread.start()
        assert self._is_there.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        anyio.from_thread.run_sync(self._over.set, token=self._token)
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with Served() as one:
        yield one.address


OPERATIONS = [(one.method, one.path) for one in ENDPOINTS]
GOOD = [("positive", *one) for one in OPERATIONS]
REQUIRING = [one for one in ENDPOINTS if any(field.required for field in msgspec.structs.fields(one.takes))]
BAD = [("negative", one.method, one.path) for one in REQUIRING]
"""Where nothing is required, nothing that is made up is surely wrong."""


@pytest.mark.parametrize(("mode", "method", "path"), [*GOOD, *BAD])
def test_an_operation_keeps_what_the_document_says(mode: str, method: str, path: str, served: str) -> None:
    operation = schemathesis.openapi.from_dict(msgspec.json.decode(document()))[path][method]
    # What a schema cannot say, such as that a publication names a channel or a user, is refused with 400 as well.
    excluded = [schemathesis.checks.positive_data_acceptance]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def keeps(case: Any) -> None:
        case.call_and_validate(base_url=f"http://{served}", excluded_checks=excluded)

    keeps()


def test_the_document_is_served_and_names_every_operation(served: str) -> None:
    response = httpx.get(f"http://{served}/api/openapi.json", trust_env=False)
    paths = response.json()["paths"]
    assert {(method.upper(), path) for path, item in paths.items() for method in item} == {*OPERATIONS, ("GET", LIVE)}
    assert response.json()["openapi"] == "3.1.0"
