"""What lies over the listings for a while: a question, the keys, the details of a client."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from fanwire.top.observer import ListedPage
from fanwire.top.palette import Moods, spoken
from fanwire.top.summary import details

KEYS = """\
1 2 3 4 5   overview, channels, clients, relay, workers
tab         to the other list
↑ ↓         to a row; PgUp, PgDn, Home, End too
enter       of a channel: its clients; of a client: its details
esc         back
s           sort by the next column
/           filter. Channels: a part of the name, or a pattern
            such as odds:*. Clients: a user's name, or
            user=… channel=… path=… Else any text of a row
d           disconnect the client, after a question
space       pause, and go on
r           ask now
t           light or dark
q           quit

reached     how long until the last subscriber that keeps
            up was written to, of what was published lately
lag, behind how old and how large what a client has yet to
            get is; msgs how many publications
why         socket_full: it does not read fast enough
            replaying: it reads what it missed
            awaits_keyframe: it was overtaken
            away: between two polls or sockets
            behind: is being written to just now"""


class Confirmation(ModalScreen[bool]):
    """Asks for a yes; all else is a no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "yes"),
        ("n,escape,q", "answer(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """What is on it."""
        yield Static(Text(f"{self._text}\n\ny yes   n no"), classes="box")

    def action_answer(self, is_yes: bool) -> None:
        """It is answered."""
        self.dismiss(is_yes)


class Keys(ModalScreen[None]):
    """What each key does."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark", "dismiss", "back")]

    def compose(self) -> ComposeResult:
        """What is on it."""
        with VerticalScroll(classes="box"):
            yield Static(Text(KEYS))


class Details(ModalScreen[bool]):
    """One client, as it is now; gives whether it is to be disconnected."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("d", "leave(True)", "disconnect"),
        ("escape,q", "leave(False)", "back"),
        ("space", "app.pause", "pause"),
    ]

    def __init__(self, client: str, moods: Moods) -> None:
        super().__init__()
        self.client: str = client
        self._moods = moods

    def compose(self) -> ComposeResult:
        """What is on it."""
        with VerticalScroll(classes="box"):
            yield Static(id="details")
            yield Static(Text("\nd disconnect   esc back", style=self._moods["quiet"]))

    def show(self, shown: ListedPage) -> None:
        """As it is now."""
        if shown.entries:
            text = Text("\n").join(spoken(line, self._moods, is_wrapped=True) for line in details(shown.entries[0]))
        else:
            text = spoken([(shown.trouble or shown.listing.nothing, "bad")], self._moods, is_wrapped=True)
        self.query_one("#details", Static).update(text)

    def action_leave(self, is_to_go: bool) -> None:
        """Back to the listings."""
        self.dismiss(is_to_go)
