"""Who is asked about, whose the answer is, and for how long: the same of both kinds, without sockets or loops."""

from types import SimpleNamespace
from typing import Any

import pytest
from fanwire.relay.admit import Admission, HubAdmission, PlainAdmission
from fanwire.relay.credentials import Credentials, Visitor
from fanwire.relay.upstreams import Backend
from support.clock import happened, upstreams

BACKEND = Backend(("http://a",), True, 1.0, 1.0, 1.0, 1, 1)
KINDS = pytest.mark.parametrize("kind", [HubAdmission, PlainAdmission])


class Asking:
    """An admission, and what its visitors were told."""

    def __init__(self, kind: type[Admission], admit_for: float) -> None:
        self.sessions = upstreams()
        self.sessions.negotiate = self.sessions.open
        passing: dict[str, Any] = {"passing": None} if kind is HubAdmission else {}
        self.admission = kind(self.sessions, BACKEND, asks=True, admit_for=admit_for, **passing)
        self.told: list[tuple[str, int, list[str]]] = []
        self.questions: list[Any] = []

    def ask(self, name: str, query: str = "") -> Any:
        """A visitor comes; gives what calls its question off."""
        visitor = Visitor(Credentials((), query, False, ()), query)
        off = self.admission.ask(visitor, lambda answer, cookies: self.told.append((name, answer.status, [*cookies])))
        self.questions += [one for one in self.admission._asked.values() if one not in self.questions]
        return off

    def answer(self, status: int = 200, index: int = 0) -> None:
        """The backend does, to this question."""
        question = self.questions[index]
        if isinstance(self.admission, PlainAdmission):
            event = happened("opened" if status == 200 else "closed", status=status)
            (question.opened if status == 200 else question.closed)(event)
        else:
            question.happened(happened("negotiated", status=status, cookies=["a=1"]))


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
    good, cookies = (101, []) if kind is PlainAdmission else (200, ["a=1"])
    assert asking.told == [("first", good, cookies), ("second", good, []), ("late", good, [])]


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
def test_one_that_cannot_be_told_keeps_nobody_else_waiting(kind: type[Admission]) -> None:
    asking = Asking(kind, 60.0)
    visitor = Visitor(Credentials((), "", False, ()), "")
    asking.admission.ask(visitor, lambda answer, cookies: SimpleNamespace().missing)
    asking.ask("second")
    asking.questions[0].fail()
    assert asking.told == [("second", 0, [])]
    assert asking.sessions.faults.counts == {"relay.admission": 1}
