"""One family of errors whose text is for the client, wherever the application raises one."""

from collections.abc import Callable

import fanwire
import pytest
from support.clients import connected, refusal
from support.hub_client import hub_client
from support.hubs import MakeHub

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
FAMILY = [fanwire.Told("sorry"), fanwire.Refused("sorry"), fanwire.HubError("sorry"), fanwire.CallFailed("sorry")]


@pytest.fixture(params=FAMILY, ids=lambda error: type(error).__name__)
def raises(request: pytest.FixtureRequest) -> Callable[..., bool]:
    """A callback that raises one of them."""

    def callback(*arguments: object) -> bool:
        raise request.param

    return callback


@pytest.mark.parametrize("error", FAMILY)
def test_they_are_one_family(error: fanwire.Told) -> None:
    assert isinstance(error, fanwire.Told) and isinstance(error, fanwire.FanwireError) and str(error) == "sorry"
    assert error.status == (401 if isinstance(error, fanwire.Refused) else 403)


@pytest.mark.parametrize("callback", ["authenticate", "authorize"])
async def test_an_opening_is_refused_with_its_text(
    hub: fanwire.Hub, callback: str, raises: Callable[..., bool], request: pytest.FixtureRequest
) -> None:
    getattr(hub, callback)(raises)
    is_refusal = "Refused" in request.node.name
    async with hub.serve(ANY) as serving:
        assert await refusal(serving.address, "/ws?channel=a") == (401 if is_refusal else 403, "sorry")


async def test_a_subscription_a_call_and_a_message_are_answered_with_it(
    hub: fanwire.Hub, raises: Callable[..., bool]
) -> None:
    hub.authorize(raises)
    hub.method("Bet")(raises)
    hub.on_message(raises)
    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send_json(subscribe=["a"], id=1)
        assert await peer.receive_json() == {"id": 1, "error": "sorry"}
        await peer.send_json(call="Bet", id=2)
        assert await peer.receive_json() == {"id": 2, "error": "sorry"}
        await peer.send("hello")
        assert await peer.receive_json() == {"error": "sorry"}


async def test_on_connect_and_signalr_tell_it(hub: fanwire.Hub, make_hub: MakeHub, raises: Callable[..., bool]) -> None:
    hub.method("Bet")(raises)
    async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
        failed = "An unexpected error occurred invoking 'Bet' on the server."
        assert await client.invoke("Bet") == {"error": f"{failed} HubException: sorry"}
    other = make_hub()
    other.on_connect(raises)
    async with other.serve(ANY) as serving, connected(serving.address) as peer:
        assert await peer.closed() == (1008, "sorry")
