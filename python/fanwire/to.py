"""Whom ``hub.publish`` is for, where that is no channel: ``hub.publish(to.user("ann"), "your bet is placed")``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from fanwire._engine import Position, Publication
from fanwire.auth import Identity
from fanwire.calls import check_text, wrong
from fanwire.client import Client
from fanwire.placing import placed

if TYPE_CHECKING:
    from collections.abc import Sequence


class Target:
    """Whom a publication is for; one of the classes below."""

    __slots__ = ()

    def check(self, key: object, ttl: object, keyframe: object, excluded: "Sequence[int]", tags: object = None) -> None:
        """Raises ValueError for an argument of ``publish`` that means nothing for such a target, and says why."""
        if key is not None:
            raise ValueError(f"key means nothing to {self}: it conflates what a channel of policy 'latest' holds")
        if keyframe is not False:
            raise ValueError(f"keyframe means nothing to {self}: nobody begins there, so that nothing is kept for it")
        if tags is not None:
            raise ValueError(f"tags mean nothing to {self}: nobody has a filter there")


@dataclass(frozen=True, slots=True)
class ToUser(Target):
    """Every connection that was accepted as one user's."""

    user: str
    """The user's id."""

    def __str__(self) -> str:
        return f"to.user({self.user!r})"


@dataclass(frozen=True, slots=True)
class ToAll(Target):
    """Every SignalR client of one path."""

    path: str | None
    """None: the first of the hub's ``signalr_paths``."""

    def __str__(self) -> str:
        return f"to.all(path={self.path!r})"


@dataclass(frozen=True, slots=True)
class ToClient(Target):
    """One client."""

    client: Client

    def __str__(self) -> str:
        return f"to.client({self.client})"

    def check(self, key: object, ttl: object, keyframe: object, excluded: "Sequence[int]", tags: object = None) -> None:
        """As ``Target.check``; besides there is nobody to exclude, and what is private does not expire."""
        Target.check(self, key, ttl, keyframe, excluded, tags)
        if ttl is not None:
            raise ValueError(f"ttl means nothing to {self}: what is sent to one client is never left out")
        if excluded:
            raise ValueError(f"exclude means nothing to {self}: nobody else gets it")


def user_id(name: str, user: Identity | str) -> str:
    """A user's id. Raises TypeError and ValueError, which name the argument, for who is none."""
    must = "an Identity, or its id, a str"
    if isinstance(user, Identity):
        if user.id is None:
            raise ValueError(f"{name} must be a user's, not anonymous: no connections are its own")
        return user.id
    if check_text(name, user, must) == "":
        wrong(name, f"{must} that is not empty", user, ValueError)
    return user


async def settled(publication: Publication) -> Position:
    """The position of a publication. With workers it is known when their supervisor has given it one.

    Raises LookupError for what went to one client alone, RuntimeError for what was not published, and HubStopped.
    """
    token = publication.await_place()
    if token is None:
        await checkpoint()
    else:
        await placed(publication, token)
    return publication.position


__all__ = ["all", "client", "user"]


def user(user: Identity | str) -> ToUser:
    """Every connection that was accepted as this user's.

    Args:
        user: what ``authenticate`` answered, or its id.

    Raises:
        TypeError, ValueError: it is neither, or anonymous.
    """
    return ToUser(user_id("user", user))


def all(path: str | None = None) -> ToAll:
    """Every SignalR client of one path.

    Args:
        path: that path; None: the first of ``signalr_paths``. Whether there is such a path, ``publish`` knows.

    Raises:
        TypeError: `path` is no str.
    """
    return ToAll(path if path is None else check_text("path", path, "the path of a hub, a str"))


def client(client: Client) -> ToClient:
    """One client alone, as ``Client.send`` does it.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(client, Client):
        wrong("client", "a Client", client)
    return ToClient(client)
