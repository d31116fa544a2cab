"""Who is asked about, whose the answer is, and for how long: the same of both kinds, without sockets or loops."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fanwire.relay.admit import Admission, HubAdmission, Memory, PlainAdmission
from fanwire.relay.credentials import Credentials, Shown, Visitor
from fanwire.relay.headers import Passing
from fanwire.relay.upstreams import Backend
from support.clock import happened, upstreams

BACKEND = Backend(("http://a",), True, 1.0, 1.0, 1.0, 1, 1)
KINDS = pytest.mark.parametrize("kind", [HubAdmission, PlainAdmission])

PASSING = Passing.of((), (), ())


class Asking:
    """An admission, and what its visitors were told."""

    def __init__(self, kind: type[Admission], admit_for: float) -> None:
        self.sessions = upstreams()
        self.sessions.negotiate = self.sessions.open
        passing: dict[str, Any] = {"passing": PASSING} if kind is HubAdmission else {}
        self.admission = kind(self.sessions, BACKEND, asks=True, admit_for=admit_for, **passing)
        self.told: list[tuple[str, int, list[str]]] = []
        self.questions: list[Any] = []

    def ask(self, name: str, query: str = "", agent: str = "a") -> Any:
        """A visitor comes, with this header that does not count; gives what calls its question off."""
        visitor = Visitor(Credentials(Shown((("user-agent", agent),), query, False), ""), query)
        off = self.admission.ask(visitor, lambda answer, cookies: self.told.append((name, answer.status, [*cookies])))
        self.questions += [one for one in self.admission._asked.values() if one not in self.questions]
        return off

    def answer(self, status: int = 200, index: int = 0) -> None:
        """The backend does, to this question."""
        question = self.questions[index]
        if isinstance(self.admission, PlainAdmission):
            event = happened("opened" if status == 200 else "closed", status=status, cookies=["a=1"])
            (question.opened if status == 200 else question.closed)(event)
        else:
            question.happened(happened("negotiated", status=status, cookies=["a=1"]))


def test_a_hash_that_is_made_once_for_all_who_show_nothing_is_nobody_else_s() -> None:
    memory = Memory()

    def visitor(*important: tuple[str, str], query: str = "", offered: tuple[str, ...] = ()) -> Visitor:
        return Visitor(Credentials(Shown((), query, False), ""), query, offered, important)

    everybody = [
        visitor(),
        visitor(("x-forwarded-host", "a")),
        visitor(("x-forwarded-host", "b")),
        visitor(("authorization", "Bearer a")),
        visitor(("authorization", "Bearer b")),
        visitor(query="a=1"),
        visitor(query="a=2"),
        visitor(offered=("a",)),
    ]
    keys = [memory.key_of(one) for one in everybody]
    assert len({*keys}) == len(everybody)
    assert [memory.key_of(one) for one in reversed(everybody)] == keys[::-1]
    assert keys == [memory.hash(one.key()) for one in everybody]
    assert "Bearer" not in repr(memory._anybodys)


@KINDS
def test_those_who_show_the_same_are_asked_about_once_and_the_cookies_are_the_first_one_s(
    kind: type[Admission],
) -> None:
    asking = Asking(kind, 60.0)
    for name, query in (("first", ""), ("second", ""), ("other", "x=1")):
        asking.ask(name, query)
    assert len(asking.sessions.opened) == 2
    asking.answer()
    asking.ask("late")
    good = 101 if kind is PlainAdmission else 200
    assert asking.told == [("first", good, ["a=1"]), ("second", good, []), ("late", good, [])]


@KINDS
def test_where_nothing_is_remembered_each_client_is_asked_about_for_itself(kind: type[Admission]) -> None:
    """Of a plain relay those who came at the same moment had one answer, whoever it was of."""
    asking = Asking(kind, 0.0)
    asking.ask("first")
    asking.ask("second")
    assert len(asking.sessions.opened) == 2
    asking.answer(401, index=1)
    assert [(name, status) for name, status, _ in asking.told] == [("second", 401)]


@KINDS
def test_a_question_that_all_have_left_is_called_off_and_says_nothing_more(kind: type[Admission]) -> None:
    asking = Asking(kind, 60.0)
    offs = [asking.ask("first"), asking.ask("second")]
    offs[0]()
    assert asking.sessions.noted.calls == []
    offs[1]()
    assert asking.sessions.noted.calls == [("close session", 1)]
    asking.answer()
    assert (asking.told, len(asking.admission._asked)) == ([], 0)
    asking.ask("third")
    assert len(asking.sessions.opened) == 2, "nothing was remembered"


@KINDS
@pytest.mark.parametrize(
    ("status", "is_remembered"), [(200, True), (401, True), (403, True), (404, False), (429, False)]
)
def test_only_what_lets_in_or_does_not_is_remembered(kind: type[Admission], status: int, is_remembered: bool) -> None:
    asking = Asking(kind, 60.0)
    asking.ask("first")
    asking.answer(status)
    asking.ask("second")
    assert (len(asking.told) == 2) == is_remembered


@KINDS
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_a_no_is_for_those_alone_who_showed_the_very_same(kind: type[Admission], status: int) -> None:
    """A firewall may refuse a header that does not count: one who sends it kept everybody out."""
    asking = Asking(kind, 60.0)
    asking.ask("bad", agent="sqlmap")
    asking.ask("bad too", agent="sqlmap")
    asking.ask("good")
    asking.ask("good too")
    off = asking.ask("gone", agent="b")
    asking.answer(status)
    assert [(name, status) for name, status, _ in asking.told] == [("bad", status), ("bad too", status)]
    assert len(asking.sessions.opened) == 3, "those who show the same are asked about once"
    off()
    asking.told.clear()
    asking.questions = list(asking.admission._asked.values())
    asking.answer()
    late = asking.ask("late", agent="c")
    late()
    good = 101 if kind is PlainAdmission else 200
    assert [(name, status) for name, status, _ in asking.told] == [("good", good), ("good too", good), ("late", good)]
    asking.ask("bad again", agent="sqlmap")
    expected = status if status in (401, 403) else good
    assert asking.told[-1][:2] == ("bad again", expected), "of a no, who is known to have got it"


@KINDS
def test_those_who_are_asked_about_anew_wait_for_room(kind: type[Admission], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanwire.relay.admit.ASKED_ANEW_MAX", 2)
    asking = Asking(kind, 60.0)
    asking.ask("bad", agent="sqlmap")
    offs = [asking.ask(f"{index}", agent=f"{index}") for index in range(5)]
    asking.answer(403)
    assert (len(asking.sessions.opened), len(asking.admission._asked), len(asking.admission._anew)) == (3, 2, 3)
    offs[2]()
    assert len(asking.admission._anew) == 2
    offs[0]()
    offs[1]()
    assert (len(asking.sessions.opened), len(asking.admission._asked), len(asking.admission._anew)) == (5, 2, 0)
    for off in offs[3:]:
        off()
    assert len(asking.admission._asked) == 0


@KINDS
def test_so_do_those_who_were_refused_by_what_another_worker_has_heard(
    kind: type[Admission], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.admit.ASKED_ANEW_MAX", 2)
    asking = Asking(kind, 60.0)
    keys: list[bytes] = []
    sharing: Any = SimpleNamespace(
        secret=bytes(32),
        number=0,
        elected=lambda key: 1,
        tell_relays=lambda path, what, key, *said, to: keys.append(key),
    )
    timers: Any = SimpleNamespace(later=lambda *due: SimpleNamespace(call_off=lambda: None))
    asking.admission.share(sharing, "/live", timers)
    offs = [asking.ask(f"{index}", agent=f"{index}") for index in range(5)]
    assert len(keys) == 1 and asking.admission.shared is not None
    asking.admission.shared.told(1, "they may", keys[0], b"of a sixth", (403, b"", None, 9.0))
    assert (len(asking.sessions.opened), len(asking.admission._asked), len(asking.admission._anew)) == (2, 2, 3)
    for off in offs:
        off()
    assert not asking.admission._asked and not asking.admission._anew and not asking.told


def test_an_error_in_the_backend_s_own_words_is_not_remembered() -> None:
    asking = Asking(HubAdmission, 60.0)
    asking.ask("first")
    asking.questions[0].happened(happened("negotiated", status=200, cookies=[], body=b'{"error":"starting"}'))
    asking.ask("second")
    assert len(asking.sessions.opened) == 2


@KINDS
@pytest.mark.parametrize(("fault", "status"), [("request", 400), ("machine", 0)])
def test_what_no_server_would_hear_is_no_server_s_failure(kind: type[Admission], fault: str, status: int) -> None:
    asking = Asking(kind, 60.0)
    failures: list[Any] = []
    health: Any = SimpleNamespace(failed=lambda *told, **named: failures.append(told))
    asking.admission.backend = replace(BACKEND, health=health)
    asking.ask("first")
    if kind is PlainAdmission:
        asking.questions[0].closed(happened("closed", fault=fault))
    else:
        asking.questions[0].happened(happened("negotiated", status=0, cookies=[], fault=fault))
    assert (asking.told, failures) == ([("first", status, [])], [])


@KINDS
def test_one_that_cannot_be_told_keeps_nobody_else_waiting(kind: type[Admission]) -> None:
    asking = Asking(kind, 60.0)
    visitor = Visitor(Credentials(Shown((("user-agent", "a"),), "", False), ""), "")
    asking.admission.ask(visitor, lambda answer, cookies: SimpleNamespace().missing)
    asking.ask("second")
    asking.questions[0].fail()
    assert asking.told == [("second", 0, [])]
    assert asking.sessions.faults.counts == {"relay.admission": 1}
