"""The lines above the listings, and the details of one client, as pieces of text with their moods."""

from collections.abc import Sequence
from typing import TypeAlias

from fanwire.top.differences import Totals
from fanwire.top.figures import count, octets, octets_rate, processors, rate, seconds, text
from fanwire.top.listings import Entry, age

Pieces: TypeAlias = list[tuple[str, str]]
LABEL = 9


def summary(totals: Totals | None) -> list[Pieces]:
    """Three lines: who is here, what goes out, what it takes."""
    if totals is None:
        return [[("waiting for the first answer", "quiet")], [], []]
    one, rates = totals, totals.rates
    return [
        [
            *_pair("clients", count(one.connections), 7),
            *_pair("new", f"{rate(rates.get('connections_total'))}/s", 8),
            *_pair("closed", f"{rate(rates.get('closes'))}/s", 8),
            *_pair("channels", count(one.channels), 7),
            *_pair("lagging", count(one.lagging), 6, "warning" if one.lagging else ""),
        ],
        [
            *_pair("publish", f"{rate(rates.get('publications'))}/s", 7),
            *_pair("deliv", f"{rate(rates.get('deliveries'))}/s", 8),
            *_pair("out", octets_rate(rates.get("bytes_out")), 10),
            *_pair("in", octets_rate(rates.get("bytes_in")), 10),
            *_pair("subs", count(one.subscriptions), 7),
        ],
        [
            *_pair("reached", f"p50 {seconds(one.p50)}  p99 {seconds(one.p99)}", 24),
            *_pair("cpu", processors(one.cpu), 6),
            *_pair("mem", octets(one.memory), 8),
        ],
    ]


def mishaps(one: Totals | None) -> Pieces:
    """What should not be, where it is."""
    told: Pieces = []
    if one is None:
        return told
    for name, title in (("overtaken", "overtaken"), ("handshakes_refused", "refused"), ("tokens_refused", "tokens")):
        if one.rates.get(name):
            told += [(f" {title} ", "quiet"), (f"{rate(one.rates[name])}/s", "warning")]
    if one.faults:
        told += [(" faults ", "quiet"), (count(one.faults), "bad")]
    if one.silent:
        told += [(" silent: ", "quiet"), (", ".join(map(str, one.silent[:4])), "bad")]
    return told


def _pair(label: str, value: str, width: int, mood: str = "strong") -> Pieces:
    return [(f" {label} ", "quiet"), (f"{value:<{width}} ", mood or "strong")]


def details(client: Entry) -> list[Pieces]:
    """All that is known of a client, a line each."""
    lag = client["lag"]
    more = client["channels_count"] - len(client["channels"])
    rows: Sequence[tuple[str, str, str]] = [
        ("client", text(client["client"]), "strong"),
        ("user", text(client["user"]), "strong"),
        ("address", text(client["address"]), ""),
        ("path", f"{text(client['path'])}  ({text(client['transport'])}, {text(client['protocol'])})", ""),
        ("here", seconds(age(client["since"], client["at"])), ""),
        ("sent", f"{octets(client['sent_bytes'])}, reads {octets_rate(client['per_s'].get('sent_bytes'))}", ""),
        ("waits", f"{octets(client['waiting_bytes'])} of its own", "warning" if client["waiting_bytes"] else ""),
        ("asks", f"{count(client['pending'])} messages that the program has not dealt with", ""),
        ("rtt", seconds(client["rtt"]), ""),
        ("watches", ", ".join(map(text, client["channels"])) + (f" and {more:,} more" if more > 0 else ""), ""),
    ]
    told = [[(f"{label:>{LABEL}}  ", "quiet"), (value, mood)] for label, value, mood in rows]
    if lag is None:
        return [*told, [(f"{'lag':>{LABEL}}  ", "quiet"), ("keeps up", "good")]]
    how_far = f"{count(lag['publications'])} messages, {octets(lag['bytes'])}, {seconds(lag['seconds'])}"
    where = "" if lag["channel"] is None else f" in {text(lag['channel'])}"
    return [
        *told,
        [(f"{'lag':>{LABEL}}  ", "quiet"), (f"{how_far}{where}", "warning")],
        [(f"{'why':>{LABEL}}  ", "quiet"), (text(lag["why"]), "bad")],
        [],
        [(text(lag["text"]), "")],
    ]
