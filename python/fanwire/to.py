"""Whom ``hub.publish`` is for, where that is no channel: ``hub.publish(to.user("ann"), "your bet is placed")``."""

from fanwire.auth import Identity
from fanwire.calls import check_text, wrong
from fanwire.client import Client
from fanwire.target import ToAll, ToClient, ToUser, user_id

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
