"""The function that lasts as long as its client: one task for each, from ``on_connect`` to its end."""

from collections.abc import Callable

from fanwire._loop import Callback
from fanwire.client import Client
from fanwire.errors import Told
from fanwire.faults import Tasks
from fanwire.inbox import Inbox
from fanwire.texts import INTERNAL_ERROR
from fanwire.wording import CLOSED_WITH_ERROR, Wording

TurnAway = Callable[[Client, int, str], None]


class Conversations:
    """Those of one serving. All state is the loop's thread's own.

    Args:
        callback: what the application registered; None: nothing is begun.
        turn_away: closes a client of which nothing is dealt with any more.
    """

    def __init__(self, callback: Callback | None, tasks: Tasks, wording: Wording, turn_away: TurnAway) -> None:
        self._callback = callback
        self._tasks = tasks
        self._wording = wording
        self._turn_away = turn_away
        self.count = 0
        """How many are at work."""

    def begin(self, client: Client) -> None:
        """The client is connected: its function begins."""
        if self._callback is not None:
            client._inbox = Inbox()
            self.count += 1
            self._tasks.start_soon(self._converse, self._callback, client, client._inbox)

    async def _converse(self, callback: Callback, client: Client, inbox: Inbox) -> None:
        code, reason = 1011, INTERNAL_ERROR  # of one that cancelled itself
        try:
            await callback(client)
            code, reason = 1000, ""
        except Exception as error:
            code, reason = self._told(callback, client, error)
        finally:
            self.count -= 1
            inbox.end()
            if client._gone is None:
                self._turn_away(client, code, reason)

    def _told(self, callback: Callback, client: Client, error: Exception) -> tuple[int, str]:
        is_told = isinstance(error, Told)
        if not is_told:
            client._note("client", error, "client %s, for client %s, raised", callback, client)
        if client.connection_id is not None:
            return 1008, self._wording.of(CLOSED_WITH_ERROR, error)
        return (1008 if is_told else 1011), self._wording.raw(error)


async def hand_over(client: Client, message: str | bytes) -> None:
    """Hand a message to the client's function."""
    if client._inbox is not None:
        await client._inbox.offer(message)
