"""The screen of ``fanwire top``: keys and places. Not here: what is asked, and how a number is written."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import ContentSwitcher, DataTable, Input, Static

from fanwire.cli.instance import NotAnswered
from fanwire.top.figures import text
from fanwire.top.listings import CHANNELS, CLIENT, CLIENTS
from fanwire.top.observer import Observed, Observer
from fanwire.top.palette import DARK, LIGHT, Moods, spoken
from fanwire.top.pane import Pane
from fanwire.top.panels import Confirmation, Details, Keys
from fanwire.top.summary import mishaps, summary
from fanwire.top.wishes import VIEWS, Preference, View, clients_of

THEMES: Mapping[bool, tuple[str, Moods]] = {False: ("textual-dark", DARK), True: ("textual-light", LIGHT)}
STYLE = """
Screen { background: $background; color: $foreground; }
.line { height: 1; width: 100%; }
#title { background: $panel; }
#keys { background: $panel; }
ContentSwitcher { height: 1fr; }
.view { height: 1fr; }
Pane { height: 1fr; }
.heading { height: 1; }
DataTable { height: 1fr; background: $background; scrollbar-size-vertical: 1; overflow-x: hidden; }
DataTable > .datatable--header { background: $panel; text-style: none; }
#filter { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
#filter.asked { display: block; }
ModalScreen { align: center middle; }
.box { width: 76; max-width: 96%; height: auto; max-height: 100%; padding: 0 2; }
.box { background: $panel; border: round $primary; scrollbar-size-vertical: 1; }
"""
KEYS = "s sort  / filter  enter open  d disconnect  space pause  ? help  q quit"
SAID_LOOKS = 5
"""So long a message stands."""
FILTERS = {CHANNELS: "a part of the name, or a pattern: odds:*", CLIENTS: "a user, or user=… channel=… path=…"}


class Top(App[str]):
    """Shows what an observer sees, each `interval_s`; gives why it has ended, where it was refused.

    Args:
        observer: is asked in a thread, one call at a time.
        where: what is observed, in a few words.
    """

    CSS = STYLE
    TITLE = "fanwire top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *((str(number), f"view('{view.name}')", view.name) for number, view in enumerate(VIEWS, 1)),
        ("s", "sort", "sort"),
        ("slash", "filter", "filter"),
        ("d", "disconnect", "disconnect"),
        ("space", "pause", "pause"),
        ("r", "refresh_now", "ask now"),
        ("t", "turn_light", "light or dark"),
        ("escape", "leave", "back"),
        ("question_mark", "keys", "keys"),
        ("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", priority=True),
    ]

    def __init__(self, observer: Observer, where: str, interval_s: float = 1.0, *, is_light: bool = False) -> None:
        super().__init__()
        self._observer, self._where, self._interval_s = observer, where, interval_s
        self._is_light = is_light
        self._nudge = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._message, self._said_at = "", 0
        self._way: list[tuple[str, Preference]] = []
        self.is_paused: bool = False
        self.looks: int = 0
        """How often it was asked."""
        self.seen: Observed = Observed()

    def compose(self) -> ComposeResult:
        """What is on it."""
        yield Static(id="title", classes="line")
        for number in range(3):
            yield Static(id=f"summary-{number}", classes="line")
        yield Static(id="views", classes="line")
        with ContentSwitcher(initial=VIEWS[0].name):
            for view in VIEWS:
                with Vertical(id=view.name, classes="view"):
                    for listing in view.listings:
                        yield Pane(view.name, listing)
        yield Input(id="filter", compact=True)
        yield Static(id="keys", classes="line")

    def on_mount(self) -> None:
        """Begin to look."""
        self.theme = THEMES[self._is_light][0]
        self._focus(self.panes[0])
        self._show()
        self.run_worker(self._keep_looking(), exclusive=True)

    # What is asked

    async def _keep_looking(self) -> None:
        while True:
            self._nudge.clear()
            wishes = {pane.listing: pane.wish for pane in self.panes}
            client = self.screen.client if isinstance(self.screen, Details) else None
            try:
                async with self._one_at_a_time:
                    self.seen = await asyncio.to_thread(self._observer.look, wishes, client)
            except NotAnswered as error:
                self.exit(text(error))
                return
            self.looks += 1
            self._show()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), None if self.is_paused else self._interval_s)

    # What is shown

    @property
    def view(self) -> View:
        """The one that is shown."""
        current = self.screen_stack[0].query_one(ContentSwitcher).current
        return next(view for view in VIEWS if view.name == current)

    @property
    def panes(self) -> list[Pane]:
        """Those of the view."""
        base = self.screen_stack[0]
        return [base.query_one(f"#{self.view.name}-{one.name}", Pane) for one in self.view.listings]

    @property
    def pane(self) -> Pane:
        """The one that has the keys."""
        return next((pane for pane in self.panes if pane.has_focus_within), self.panes[0])

    @property
    def moods(self) -> Moods:
        """The colours of now."""
        return THEMES[self._is_light][1]

    def on_resize(self) -> None:
        """Other columns may have room."""
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        seen, moods = self.seen, self.moods
        base = self.screen_stack[0]
        for number, pieces in enumerate(summary(seen.totals)):
            base.query_one(f"#summary-{number}", Static).update(spoken(pieces, moods))
        base.query_one("#title", Static).update(spoken(self._title(), moods))
        tabs = [
            (f" {number} {view.name} ", "strong" if view is self.view else "quiet")
            for number, view in enumerate(VIEWS, 1)
        ]
        base.query_one("#views", Static).update(spoken([*tabs, *mishaps(seen.totals)], moods))
        message = self._message if self.looks - self._said_at < SAID_LOOKS else ""
        base.query_one("#keys", Static).update(
            spoken([(f" {message or KEYS}", "warning" if message else "quiet")], moods)
        )
        for pane in self.panes:
            if pane.listing.name in seen.shown:
                pane.show(seen.shown[pane.listing.name], self.size.width, moods)
        if isinstance(self.screen, Details) and CLIENT.name in seen.shown:
            self.screen.show(seen.shown[CLIENT.name])

    def _title(self) -> list[tuple[str, str]]:
        one = self.seen.totals
        version = "" if one is None else f" {text(one.version)}"
        workers = "" if one is None else f"  {one.workers} worker{'s' * (one.workers != 1)}"
        told = [(f" fanwire{version}", "strong"), (f"  {text(self._where)}{workers}  ", "quiet")]
        if self.seen.trouble:
            return [*told, (self.seen.trouble, "bad")]
        if self.is_paused:
            return [*told, ("paused", "warning")]
        return [*told, (f"{datetime.now():%H:%M:%S}", "good")]

    def _say(self, message: str) -> None:
        self._message, self._said_at = message, self.looks
        self._show()

    # Keys

    def _ask_now(self) -> None:
        self._message = ""
        self._nudge.set()

    def _focus(self, pane: Pane) -> None:
        pane.table.focus()

    def action_view(self, name: str) -> None:
        """Another view."""
        self._way.clear()
        self._go(name)

    def _go(self, name: str) -> None:
        self.query_one(ContentSwitcher).current = name
        self._focus(self.panes[0])
        self._ask_now()
        self._show()

    def action_sort(self) -> None:
        """By the next column."""
        pane = self.pane
        pane.wish = pane.wish.next_sort(pane.listing)
        self._ask_now()

    def action_filter(self) -> None:
        """Ask for one."""
        field = self.query_one("#filter", Input)
        field.value = self.pane.wish.filter
        field.placeholder = FILTERS.get(self.pane.listing, "any text of a row")
        field.add_class("asked")
        self._filtered = self.pane
        field.focus()

    @on(Input.Submitted, "#filter")
    def filter_given(self, event: Input.Submitted) -> None:
        """It was typed."""
        pane = self._filtered
        try:
            pane.wish = pane.wish.filtered(pane.listing, event.value)
        except ValueError as error:
            self._say(str(error))
            return
        self._end_filter()
        self._ask_now()

    def _end_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("asked")
        self._focus(self._filtered)

    def action_leave(self) -> None:
        """Where one was before."""
        if self.query_one("#filter", Input).has_class("asked"):
            self._message = ""
            self._end_filter()
            self._show()
        elif self._way:
            name, wish = self._way.pop()
            self.pane.wish = wish
            self._go(name)
        elif self.pane.wish.filter:
            self.pane.wish = self.pane.wish.filtered(self.pane.listing, "")
            self._ask_now()

    @on(DataTable.RowSelected)
    def opened(self) -> None:
        """Of a channel its clients, of a client its details."""
        pane, entry = self.pane, self.pane.selected
        if entry is None:
            return
        if pane.listing is CHANNELS:
            clients = self.query_one("#clients-clients", Pane)
            self._way.append((self.view.name, clients.wish))
            clients.wish = clients_of(entry["channel"])
            self._go("clients")
        elif pane.listing is CLIENTS:
            self._open(entry["client"], entry["user"])

    def _open(self, client: str, user: str | None) -> None:
        def left(is_to_go: bool | None) -> None:
            if is_to_go:
                self._ask_to_disconnect(client, user)

        self.push_screen(Details(client, self.moods), left)
        self._ask_now()

    def action_disconnect(self) -> None:
        """The client that the cursor is on."""
        entry = self.pane.selected if self.pane.listing is CLIENTS else None
        if entry is None:
            self._say("no client is chosen: 3 lists them")
        else:
            self._ask_to_disconnect(entry["client"], entry["user"])

    def _ask_to_disconnect(self, client: str, user: str | None) -> None:
        who = text(client) if user is None else f"{text(client)}, {text(user)},"

        def answered(is_yes: bool | None) -> None:
            if is_yes:
                self.run_worker(self._disconnect(client))

        self.push_screen(Confirmation(f"Disconnect {who} for good? It may come back."), answered)

    async def _disconnect(self, client: str) -> None:
        async with self._one_at_a_time:
            said = await asyncio.to_thread(self._observer.disconnect, client)
        self._ask_now()
        self._say(said)

    def action_pause(self) -> None:
        """Ask no more, or again."""
        self.is_paused = not self.is_paused
        if not self.is_paused:
            self._ask_now()
        self._show()

    def action_refresh_now(self) -> None:
        """Ask at once."""
        self._ask_now()

    def action_turn_light(self) -> None:
        """The other colours."""
        self._is_light = not self._is_light
        self.theme = THEMES[self._is_light][0]
        self._show()

    def action_keys(self) -> None:
        """What there is."""
        self.push_screen(Keys())
