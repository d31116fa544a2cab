"""The screen of ``fanwire top`` by its keys, with textual's pilot, at an admin side with made data."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fanwire.cli.instance import NotAnswered
from support.stand_in_admin import StandInAdmin

pytest.importorskip("textual", reason="the screen needs textual")

from fanwire.top.observer import Observer
from fanwire.top.palette import DARK, LIGHT, is_light_terminal
from fanwire.top.panels import Confirmation, Details, Keys
from fanwire.top.screen import Top
from rich.style import Style
from textual.color import Color
from textual.pilot import Pilot
from textual.theme import BUILTIN_THEMES
from textual.widgets import Input

NARROW = (80, 24)
HOSTILE = "[red]a\x1b[2J\u202e[/]"


class Played:
    """A screen that asks when it is told to, and else once an hour."""

    def __init__(self, app: Top, pilot: Pilot[str], admin: StandInAdmin) -> None:
        self.app, self.pilot, self.admin = app, pilot, admin

    async def until(self, condition: Callable[[], object]) -> None:
        """Let it go on until this is so."""
        async with asyncio.timeout(60):
            while not condition():
                assert self.app._exception is None
                await self.pilot.pause()

    async def looked(self, *keys: str) -> None:
        """Press keys, after each of which it asks, and has shown what was answered."""
        for key in keys:
            looks = self.app.looks
            await self.pilot.press(key)
            await self.until(lambda looks=looks: self.app.looks > looks)
            await self.pilot.pause()

    async def sees(self, *words: str) -> None:
        """Wait until all of them stand there."""
        try:
            await self.until(lambda: all(word in self.text for word in words))
        except TimeoutError:
            raise AssertionError(f"{[word for word in words if word not in self.text]} not in\n{self.text}") from None

    async def sees_no(self, word: str) -> None:
        """Wait until it does not stand there."""
        await self.until(lambda: word not in self.text)

    async def opened(self, key: str, screen: type[object]) -> None:
        """Press a key, and wait for what it opens."""
        await self.pilot.press(key)
        await self.until(lambda: isinstance(self.app.screen, screen))

    async def filter(self, text: str) -> None:
        """Type one, without an end."""
        await self.pilot.press("slash")
        await self.until(lambda: self.app.query_one("#filter", Input).has_focus)
        await self.pilot.press(*text)
        await self.until(lambda: self.app.query_one("#filter", Input).value.endswith(text))

    @property
    def lines(self) -> list[str]:
        """What stands there."""
        width = self.app.size.width
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip)[:width].rstrip() for strip in strips]

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)


def play(
    script: Callable[[Played], Awaitable[None]], admin: StandInAdmin | None = None, size: tuple[int, int] = NARROW
) -> Top:
    """Show a screen, and do with it what the script says."""
    admin = admin or StandInAdmin()
    app = Top(Observer(lambda: admin), "127.0.0.1:9001", 3_600)  # type: ignore[arg-type,return-value]

    async def main() -> None:
        async with app.run_test(size=size) as pilot:
            played = Played(app, pilot, admin)
            await played.until(lambda: app.looks)
            await script(played)

    asyncio.run(main())
    return app


def test_the_overview_has_rates_and_who_costs_and_who_lags() -> None:
    async def script(top: Played) -> None:
        await top.looked("r")
        await top.sees("clients 12,000", "deliv 9,840/s", "p50 750 µs  p99 9.4 ms", "cpu 63 %", "faults 2", "lagging 8")
        await top.sees("odds:59", "1:c35@1", "awaits_keyframe", "q quit")
        assert max(map(len, top.lines)) <= 80 and len(top.lines) == 24

    play(script)


def test_each_view_shows_what_it_is_named_after() -> None:
    async def script(top: Played) -> None:
        await top.pilot.press("2")
        await top.sees("channels by", "odds:48", "deliv/s▼")
        await top.pilot.press("3")
        await top.sees("clients by", "1:c35@1", "lag▼")
        await top.pilot.press("4")
        await top.sees("http://10.0.0.10", "down", 'Subscribe ["match:12"]')
        await top.pilot.press("5")
        await top.sees("edge-2", "no answer of worker 257", "backbone up")

    play(script)


@pytest.mark.parametrize("size", [(40, 10), (200, 50)], ids=str)
def test_every_view_bears_every_width(size: tuple[int, int]) -> None:
    async def script(top: Played) -> None:
        await top.looked("2", "3", "4", "5", "1")
        assert len(top.lines) == size[1]
        await top.pilot.resize_terminal(120, 30)
        await top.sees(" kept")

    play(script, size=size)


def test_s_sorts_by_the_next_column() -> None:
    async def script(top: Played) -> None:
        await top.looked("2", "s")
        await top.until(lambda: top.admin.asked[-1][1].get("sort") == "rate")
        await top.sees("pub/s▼")
        await top.pilot.press("s", "s", "s")
        await top.sees("deliv/s▼")

    play(script)


def test_a_filter_is_asked_for_and_escape_takes_it_away() -> None:
    async def script(top: Played) -> None:
        await top.looked("2")
        await top.filter("s:12")
        await top.pilot.press("enter")
        await top.until(lambda: top.admin.asked[-1][1].get("match") == "*s:12*")
        await top.sees("filter s:12")
        await top.sees_no("odds:59")
        await top.filter("x")
        await top.pilot.press("escape")
        await top.until(lambda: not top.app.query_one("#filter", Input).has_focus)
        assert top.app.pane.wish.filter == "s:12", "what was not entered changes nothing"
        await top.pilot.press("escape")
        await top.until(lambda: "match" not in top.admin.asked[-1][1])
        await top.sees("odds:59")

    play(script)


def test_a_filter_that_means_nothing_is_told_of() -> None:
    async def script(top: Played) -> None:
        await top.looked("3")
        await top.filter("user=")
        await top.pilot.press("enter")
        await top.sees("user= has no value")
        assert top.app.query_one("#filter", Input).has_focus
        await top.pilot.press(*"user7", "enter")
        await top.until(lambda: top.admin.asked[-1][1].get("user") == "user7")
        await top.sees("1:c7@1")

    play(script)


def test_enter_on_a_channel_lists_its_clients_and_escape_goes_back() -> None:
    async def script(top: Played) -> None:
        await top.looked("2")
        await top.sees("odds:59")
        top.admin.asked.clear()
        await top.looked("enter")
        assert top.app.view.name == "clients"
        assert {query.get("channel") for path, query in top.admin.asked if path == "/api/clients"} == {"odds:59"}
        await top.sees("channel=odds:59")
        await top.pilot.press("escape")
        await top.until(lambda: top.app.view.name == "channels")
        await top.pilot.press("3")
        await top.until(lambda: top.admin.asked[-1] == ("/api/clients", {"sort": "lag", "limit": "100"}))

    play(script)


def test_enter_on_a_client_shows_why_it_lags_and_d_gets_rid_of_it() -> None:
    async def script(top: Played) -> None:
        await top.looked("3")
        await top.sees("1:c35@1")
        await top.opened("enter", Details)
        await top.sees("the channel went past it", "user35", "10.1.2.35")
        await top.opened("d", Confirmation)
        await top.sees("Disconnect 1:c35@1, user35,")
        await top.pilot.press("y")
        await top.sees("1:c35@1 is disconnected")
        assert [body["client"] for _, body in top.admin.done] == ["1:c35@1"]
        await top.sees_no("1:c35@1  ")

    play(script)


@pytest.mark.parametrize("key", ["n", "escape", "enter"])
def test_only_a_yes_disconnects(key: str) -> None:
    async def script(top: Played) -> None:
        await top.looked("3")
        await top.sees("1:c35@1")
        await top.opened("d", Confirmation)
        await top.pilot.press(key)
        if key == "enter":
            assert isinstance(top.app.screen, Confirmation)
            await top.pilot.press("escape")
        await top.until(lambda: not isinstance(top.app.screen, Confirmation))
        assert top.admin.done == []

    play(script)


def test_d_on_what_is_no_client_says_so() -> None:
    async def script(top: Played) -> None:
        await top.looked("2")
        await top.pilot.press("d")
        await top.sees("no client is chosen")

    play(script)


def test_a_client_that_is_gone_is_said_to_be() -> None:
    async def script(top: Played) -> None:
        await top.looked("3")
        await top.sees("1:c35@1")
        await top.opened("enter", Details)
        top.admin.clients = []
        top.app.action_refresh_now()
        await top.sees("no client 1:c35@1 is connected")
        await top.pilot.press("escape")
        await top.sees("nobody lags")

    play(script)


def test_the_cursor_stays_at_its_client_when_others_come_before_it() -> None:
    async def script(top: Played) -> None:
        await top.looked("3")
        await top.sees("1:c35@1")
        await top.pilot.press("down", "down")
        await top.until(lambda: top.app.pane.table.cursor_row == 2)
        assert top.app.pane.selected is not None and top.app.pane.selected["client"] == "1:c25@1"
        top.admin.clients = [one for one in top.admin.clients if one["client"] not in ("1:c35@1", "0:c30@1")]
        await top.pilot.press("r")
        await top.until(lambda: top.app.pane.table.cursor_row == 0)
        assert top.app.pane.selected["client"] == "1:c25@1"

    play(script)


def test_space_pauses_and_goes_on() -> None:
    async def script(top: Played) -> None:
        await top.pilot.press("space")
        await top.sees("paused")
        looks = top.app.looks
        await top.looked("2")
        assert top.app.looks == looks + 1, "what is chosen is asked for once"
        await top.sees("paused", "channels by")
        await top.looked("space")
        await top.sees_no("paused")

    play(script)


def test_a_hub_that_goes_and_comes_back_is_shown() -> None:
    async def script(top: Played) -> None:
        await top.sees("odds:59")
        top.admin.is_away = True
        await top.pilot.press("r")
        await top.sees("Connection refused", "odds:59")
        top.admin.is_away = False
        await top.pilot.press("r")
        await top.sees_no("Connection refused")

    play(script)


def test_a_wrong_token_ends_it_with_why() -> None:
    admin = StandInAdmin()

    async def script(top: Played) -> None:
        admin.problems["/api/stats"] = NotAnswered("that is not the token", "wrong_token")
        await top.pilot.press("r")
        await top.until(lambda: not top.app.is_running)

    assert play(script, admin).return_value == "that is not the token"


def test_names_full_of_markup_are_shown_as_they_are_but_for_what_a_terminal_obeys() -> None:
    admin = StandInAdmin()
    admin.channels[59]["channel"] = HOSTILE
    admin.clients[35].update(user=HOSTILE, channels=[HOSTILE])

    async def script(top: Played) -> None:
        await top.sees("[red]a [2J")
        await top.pilot.press("enter")
        await top.sees("channel=[red]a [2J")
        await top.pilot.press("escape", "3")
        await top.sees("1:c35@1")
        await top.opened("enter", Details)
        await top.sees("[red]a [2J [/]")
        await top.opened("d", Confirmation)
        await top.sees("Disconnect 1:c35@1, [red]a [2J")
        assert "\x1b" not in top.text and "\u202e" not in top.text

    play(script, admin)


def test_one_thing_is_asked_at_a_time_however_fast_keys_come() -> None:
    async def script(top: Played) -> None:
        await top.pilot.press(*"12345123")
        await top.looked("r")
        assert top.admin.most_at_once == 1

    play(script)


def test_help_has_each_key_and_goes_away() -> None:
    async def script(top: Played) -> None:
        await top.opened("question_mark", Keys)
        await top.sees("disconnect the client")
        await top.pilot.press("escape")
        await top.sees("q quit")

    play(script)


@pytest.mark.parametrize("keys", [["q"], ["ctrl+c"], ["slash", "ctrl+c"], ["question_mark", "ctrl+c"]], ids=" ".join)
def test_q_and_ctrl_c_quit(keys: list[str]) -> None:
    async def script(top: Played) -> None:
        await top.pilot.press(*keys)
        await top.until(lambda: not top.app.is_running)

    assert play(script).return_value is None


def test_a_list_that_grows_and_shrinks_has_each_row_once() -> None:
    async def script(top: Played) -> None:
        await top.looked("3")
        every = top.admin.clients
        for clients in (every[:6], every, [], every[5:20]):
            top.admin.clients = clients
            lagging = sorted((one for one in clients if one["lag"]), key=lambda one: -one["lag"]["seconds"])
            await top.pilot.press("r")
            await top.until(lambda wanted=[one["client"] for one in lagging]: listed(top) == wanted)

    play(script, size=(80, 40))


def listed(top: Played) -> list[str]:
    """The clients' names."""
    table = top.app.pane.table
    return [str(table.get_row_at(row)[0]) for row in range(table.row_count)]


@pytest.mark.parametrize(("moods", "theme"), [(DARK, "textual-dark"), (LIGHT, "textual-light")], ids=["dark", "light"])
def test_colours_can_be_read(moods: dict[str, str], theme: str) -> None:
    """WCAG AA: 4.5 to 1."""
    colours = BUILTIN_THEMES[theme].to_color_system().generate()
    for place in ("background", "surface", "panel"):
        ground = Color.parse(colours[place])
        for mood, style in moods.items():
            colour = Style.parse(style).color
            assert colour is not None
            light, dark = sorted((luminance(ground), luminance(Color.from_rich_color(colour))), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (place, mood)


def luminance(colour: Color) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_a_light_terminal_is_known_by_what_it_says() -> None:
    assert is_light_terminal({"COLORFGBG": "0;15"}) and is_light_terminal({"COLORFGBG": "0;default;7"})
    assert not is_light_terminal({"COLORFGBG": "15;0"}) and not is_light_terminal({})
