"""What several processes of one application tell one another by way of a backbone: bytes under a name, at most once."""

import os
import threading
import weakref
from collections.abc import Callable

from fanwire._engine import Answer, BackboneLink
from fanwire.publisher import Publisher, Sending

DOWN, UP = "down", "up"


class Exchange:
    """One process's end, which other threads and event loops may share. A fork has to make its own.

    Args:
        url, prefix, timeout: as for ``Publisher``. Under one prefix a name has to have one meaning.
    """

    def __init__(self, url: str, *, prefix: str = "fanwire", timeout: float = 10.0) -> None:
        self._publisher = Publisher(url, prefix=prefix, channels={}, timeout=timeout)
        self._timeout = timeout

    def tell(self, name: str, message: bytes) -> None:
        """Have all processes that hear this name, this one among them, get a message. Waits until it is on its way.

        Raises NotPublished, LimitReached.
        """
        call = Sending(self._publisher, self._timeout)
        call.settle(call.link.publish("programs", name, message))

    async def atell(self, name: str, message: bytes) -> None:
        """``tell`` in any event loop."""
        call = Sending(self._publisher, self._timeout)
        await call.asettle(call.link.publish("programs", name, message))

    def hear(self, name: str) -> Answer:
        """Have what is told under this name come, from the moment on at which the answer is known. Any thread."""
        return self._publisher._linked().hear(name)

    async def heard(self, answer: Answer) -> None:
        """Wait for what ``hear`` gave; in any event loop. Raises NotPublished."""
        await Sending(self._publisher, self._timeout).asettle(answer)

    def leave(self, name: str) -> None:
        """No more of it. Any thread; a closed exchange hears nothing."""
        link = self._publisher._link
        if link is not None:
            link.hear_no_more(name)

    def link(self) -> BackboneLink:
        """What messages are taken from, by one reader. Raises NotPublished where it is closed."""
        return self._publisher._linked()

    def close(self) -> None:
        """End it. Idempotent."""
        self._publisher.close()


class Receiving:
    """A thread that hands on what an exchange hears, for what belongs to no event loop.

    It ends with the process, or by ``close``, which any other thread may call.

    Args:
        take: is called with the name and the message; with an empty name it is ``down``, ``up``, or how many were
            missed. What it raises is its own to tell.
    """

    def __init__(self, exchange: Exchange, take: Callable[[str, bytes], None]) -> None:
        self._exchange = exchange
        self._take = take
        self._end, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._finish = weakref.finalize(self, _close_both, self._end, self._wake)
        self._thread = threading.Thread(target=self._run, name="fanwire-exchange", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        import select

        link = self._exchange.link()
        polled = select.poll()
        for descriptor in (link.fileno(), self._end):
            polled.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in polled.poll()}
            if self._end in ready:
                return
            for name, message in link.take():
                self._take(name or "", message)

    def close(self) -> None:
        """End the thread."""
        os.write(self._wake, b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._finish()


def _close_both(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
