"""What ``fanwire top`` makes of what the admin side answers: rates, quantiles, columns, questions. No screen."""

import json
from typing import Any

import pytest
from fanwire.cli.instance import NotAnswered
from fanwire.top.differences import Baseline, per_second, quantile, totals
from fanwire.top.figures import count, octets_rate, rate, seconds, text
from fanwire.top.lines import HEAD_EVERY, head, lines
from fanwire.top.listings import CHANNELS, CLIENTS, GAP, LANES, UPSTREAMS, WORKERS, fitted, lag_in_words
from fanwire.top.observer import Observer
from fanwire.top.wishes import ROWS, VIEWS, Preference, arranged, clients_of, questions, terms_of
from support.stand_in_admin import StandInAdmin, stats

HOSTILE = 'a\x1b[2J[red]<b>&"\u202eb\x9b1m\nc'


def observed(admin: StandInAdmin) -> Observer:
    return Observer(lambda: admin)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0"), (12_345, "12,345"), (99_999.7, "100k"), (1_234_567, "1.2M"), (5e9, "5.0G"), (2e12, "2.0T")],
)
def test_counts_are_short(value: float | None, shown: str) -> None:
    assert count(value) == shown


@pytest.mark.parametrize("power", range(15))
def test_no_count_is_wider_than_six_characters(power: int) -> None:
    assert all(len(count(digit * 10.0**power - rest)) <= 6 for digit in (1, 5, 9.99) for rest in (0, 0.4, 0.6))


def test_small_rates_have_a_decimal_and_sizes_a_unit() -> None:
    assert [rate(0), rate(0.25), rate(9.94), rate(9.96)] == ["0", "0.2", "9.9", "10"]
    assert [octets_rate(None), octets_rate(1_500)] == ["–", "1.5 kB/s"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0 s"),
        (-1, "0 µs"),
        (0.0005, "500 µs"),
        (0.0125, "12.5 ms"),
        (4.21, "4.2 s"),
        (200, "3m 20s"),
        (18_120, "5h 02m"),
        (1_047_600, "12d 3h"),
    ],
)
def test_times_are_short(value: float | None, shown: str) -> None:
    assert seconds(value) == shown


def test_a_name_moves_no_cursor() -> None:
    assert text(HOSTILE).isprintable()
    assert text("") == text(None) == "–"
    assert len(text("x" * 10_000)) < 600


@pytest.mark.parametrize(("share", "told"), [(0.0, 0.0), (0.25, 0.05), (0.5, 0.1), (0.75, 0.6), (0.9, 0.9), (1.0, 1.0)])
def test_quantiles_are_those_of_prometheus(share: float, told: float) -> None:
    assert quantile([(0.1, 10), (1.0, 19), (None, 20)], share) == pytest.approx(told)


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile([(0.1, 0), (None, 0)], 0.5) is None
    assert quantile([], 0.5) is None


def test_totals_are_the_difference_of_two_readings() -> None:
    one = totals(stats(12), stats(10))
    assert one.rates["publications"] == 120
    assert one.rates["closes"] == 10
    assert one.cpu == pytest.approx(0.63)
    assert one.p50 == pytest.approx(0.00075)
    assert one.p99 == pytest.approx(0.0094)
    assert one.connections == 12_000


@pytest.mark.parametrize(
    "other",
    [{"workers": [0]}, {"deliveries": 10**9}, {"cpu": 1e6}, {"at": 2e9}],
    ids=["another worker answers", "a worker has begun anew", "cpu went back", "the clock went back"],
)
def test_rates_of_other_workers_or_lives_are_not_made_up(other: dict[str, Any]) -> None:
    one = totals(stats(12), {**stats(10), **other})
    assert (dict(one.rates), one.cpu, one.p50) == ({}, None, None)


def test_rates_are_of_half_a_second_at_least() -> None:
    base: Baseline[str] = Baseline()
    readings = [(0.0, "a"), (0.1, "b"), (1.0, "c"), (1.1, "d"), (1.6, "e"), (0.5, "f"), (1.0, "g")]
    earlier = [base.before(at, one) for at, one in readings]
    assert earlier == [None, None, (0.0, "a"), (0.0, "a"), (1.0, "c"), None, (0.5, "f")]


def test_a_row_s_counter_that_began_anew_has_no_rate() -> None:
    now, before = {"sent": 10, "cpu": 3.0, "none": None}, {"sent": 20, "cpu": 1.0, "none": 1}
    assert per_second(now, before, ("sent", "cpu", "none", "absent"), 2.0) == {"cpu": 1.0}


@pytest.mark.parametrize("listing", [CHANNELS, CLIENTS, UPSTREAMS, LANES, WORKERS], ids=lambda one: one.name)
@pytest.mark.parametrize("width", [80, 90, 100, 110, 120, 130, 140, 160, 165, 175, 250])
def test_columns_fit(listing: Any, width: int) -> None:
    columns = fitted(listing.columns, width - 1)
    assert sum(wide + GAP for _, wide in columns) == width - 1
    assert all(len(column.title) + (column.sort in listing.sorts) <= wide for column, wide in columns)
    assert set(listing.sorts) - {column.sort for column in listing.columns} == set()


def test_a_filter_of_clients_says_what_it_means() -> None:
    assert terms_of("") == {}
    assert terms_of("anna bell") == {"user": "anna bell"}
    assert terms_of("channel=a b user=x path=/ws") == {"channel": "a b", "user": "x", "path": "/ws"}
    assert terms_of("anna channel=superuser=1") == {"user": "anna", "channel": "superuser=1"}
    for wrong in ("user=", "anna user=ben", "path=/a path=/b"):
        with pytest.raises(ValueError, match=r"twice|no value"):
            terms_of(wrong)


def test_all_that_is_asked_is_one_page_by_what_is_most() -> None:
    assert questions(CHANNELS, Preference()) == [{"sort": "deliveries", "limit": "100"}]
    assert questions(CHANNELS, Preference(filter="dds"))[0]["match"] == "*dds*"
    assert questions(CHANNELS, Preference(filter="odds:*"))[0]["match"] == "odds:*"
    assert questions(CLIENTS, Preference()) == [{"sort": "lag", "limit": "100"}]
    of_channel = clients_of("odds:7")
    page = {"limit": "100", "channel": "odds:7"}
    assert questions(CLIENTS, of_channel) == [{"sort": "lag", **page}, page]
    by_waiting = Preference("waiting", of_channel.filter, of_channel.terms)
    assert questions(CLIENTS, by_waiting) == [{"sort": "waiting", **page}, page]


def test_sorts_go_round() -> None:
    wish = Preference()
    seen = [wish.sort_of(CHANNELS)]
    for _ in CHANNELS.sorts:
        wish = wish.next_sort(CHANNELS)
        seen.append(wish.sort_of(CHANNELS))
    assert seen == [*CHANNELS.sorts, CHANNELS.sorts[0]]


def test_what_the_admin_side_does_not_sort_is_sorted_and_filtered_here() -> None:
    seen = observed(StandInAdmin()).look(
        {LANES: Preference(), UPSTREAMS: Preference(), WORKERS: Preference(filter="EDGE-2")}
    )
    assert [one["clients"] for one in seen.shown["lanes"].entries[:3]] == [1200, 1100, 1000]
    assert seen.shown["upstreams"].entries[0]["state"] == "down"
    assert [one["worker"] for one in seen.shown["workers"].entries] == [256]
    assert seen.shown["workers"].silent == [257]
    assert "backbone up" in seen.shown["workers"].beside
    lanes = [{**one, "at": 0.0} for one in seen.shown["lanes"].entries]
    assert [one["state"] for one in arranged(LANES, Preference(sort="state"), lanes)][:2] == ["down", "live"]


def test_clients_of_a_channel_are_those_that_lag_and_then_others_each_once() -> None:
    admin = StandInAdmin()
    (shown,) = observed(admin).look({CLIENTS: clients_of("odds:0")}).shown.values()
    assert [one["client"] for one in shown.entries] == ["0:c0@1", "0:c8@1", "0:c16@1", "0:c24@1", "0:c32@1"]
    assert [one["lag"] is not None for one in shown.entries] == [True, False, False, False, False]


def test_a_hub_that_goes_and_comes_back_is_found_again() -> None:
    admin, found = StandInAdmin(), []
    observer = Observer(lambda: found.append(admin) or admin)  # type: ignore[arg-type,return-value,func-returns-value]
    observer.look({})
    good = observer.look({CHANNELS: Preference()})
    assert good.totals is not None and good.totals.rates and not good.trouble
    admin.is_away = True
    away = observer.look({CHANNELS: Preference()})
    assert "Connection refused" in away.trouble
    assert away.shown == good.shown, "what was seen stays"
    admin.is_away = False
    back = observer.look({CHANNELS: Preference()})
    assert not back.trouble
    assert back.totals is not None and not back.totals.rates, "it may be another life"
    assert len(found) == 2


def test_who_is_not_let_in_asks_no_more() -> None:
    admin = StandInAdmin()
    admin.problems["/api/stats"] = NotAnswered("that is not the token", "wrong_token")
    with pytest.raises(NotAnswered, match="token"):
        observed(admin).look({})


def test_what_is_wrong_with_one_listing_is_its_own() -> None:
    admin = StandInAdmin()
    admin.problems["/api/clients"] = NotAnswered("the hub knows no users", "invalid_value")
    seen = observed(admin).look({CHANNELS: Preference(), CLIENTS: Preference()})
    assert not seen.trouble
    assert seen.shown["clients"].trouble == "the hub knows no users"
    assert len(seen.shown["channels"].entries) == 60


@pytest.mark.parametrize("answer", [{}, [], None, {"at": "soon"}, {**stats(1), "workers": None}])
def test_an_answer_that_is_no_such_answer_ends_nothing(answer: Any) -> None:
    admin = StandInAdmin()
    admin._stats = lambda query: answer  # type: ignore[method-assign]
    assert "not understood" in observed(admin).look({}).trouble


def test_who_was_disconnected_is_told_of_and_who_was_not_too() -> None:
    admin = StandInAdmin()
    observer = observed(admin)
    assert observer.disconnect("0:c0@1") == "0:c0@1 is disconnected"
    assert "no client 0:c0@1" in observer.disconnect("0:c0@1")
    assert {path for path, _ in admin.done} == {"/api/disconnect"}


def test_however_many_there_are_one_page_is_asked_for() -> None:
    admin = StandInAdmin()
    for view in VIEWS:
        admin.asked.clear()
        observed(admin).look({listing: Preference() for listing in view.listings})
        assert len(admin.asked) == 1 + len(view.listings)
        assert all("after" not in query for _, query in admin.asked)
    assert ROWS == 100


def told(admin: StandInAdmin, count_max: int, *, is_json: bool) -> list[str]:
    said: list[str] = []
    lines(observed(admin), lambda: None, said.append, is_json, count_max)
    return said


def test_lines_have_columns_and_say_who_lags_most() -> None:
    first, second, third = told(StandInAdmin(), 2, is_json=False)
    assert first == head()
    assert second.split()[1:5] == ["12,000", "8", "120", "9,840"]
    assert second.endswith("1:c35@1 user35 awaits_keyframe 2m 27s 2.9 MB")
    assert len(second) == len(third)


def test_lines_repeat_their_head_and_go_on_while_the_hub_is_away() -> None:
    admin = StandInAdmin()
    assert told(admin, HEAD_EVERY + 1, is_json=False).count(head()) == 2
    admin.is_away = True
    assert "Connection refused" in told(admin, 1, is_json=False)[1]
    assert "Connection refused" in json.loads(told(admin, 1, is_json=True)[0])["error"]


def test_lines_of_json_are_in_base_units() -> None:
    (line,) = told(StandInAdmin(), 1, is_json=True)
    one = json.loads(line)
    assert one["completion_p99"] == pytest.approx(0.0094)
    assert one["per_second"]["bytes_out"] == 12_345_678
    assert one["cpu"] == pytest.approx(0.63)
    assert one["lags_most"]["lag"]["why"] == "awaits_keyframe"


def test_nobody_lags() -> None:
    admin = StandInAdmin()
    admin.clients = []
    assert told(admin, 1, is_json=False)[1].endswith(" –")
    assert json.loads(told(admin, 1, is_json=True)[0])["lags_most"] is None
    assert lag_in_words({"lag": None}) == "–"
