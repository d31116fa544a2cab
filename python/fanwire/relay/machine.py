"""A lane's life as a table: what is to be done when something happens. No task, clock, chance or engine is in here.

Events go in, acts come out. ``driver`` finds out what happened and does what is to be done; ``wire`` knows by which
words of the backend an event is recognised.
"""

from enum import Enum, auto
from typing import NamedTuple


class State(Enum):
    """Of a lane, as stats show it."""

    CONNECTING = "connecting"
    LIVE = "live"
    DOWN = "down"
    CLOSED = "closed"


class Phase(Enum):
    """Where a lane is in its life."""

    OPENING = auto()
    """A connection is being opened."""
    ASKING = auto()
    """It is open, and has been asked for what the lane is to carry."""
    ENDING = auto()
    """It is of no use, and about to be gone."""
    LIVE = auto()
    """The backend has agreed."""
    RENEWING = auto()
    """The same, and it has been asked once more, for newcomers."""
    PAUSED = auto()
    """There is no connection until the next attempt."""
    CLOSED = auto()


class Event(Enum):
    """What happens to a lane."""

    OPENED = auto()
    """The connection is open, and has yet to be asked."""
    AGREED = auto()
    """The backend carries what was asked for."""
    REFUSED = auto()
    """It will not, and keeps the connection."""
    UNANSWERED = auto()
    """It has had its time."""
    LOST = auto()
    """The connection is gone, or could not be had."""
    BLAMED = auto()
    """The same, and it is the fault of what was said on it."""
    BARRED = auto()
    """The same, and those who wait need not wait for another."""
    WANTED = auto()
    """Newcomers need something newer than there is."""
    DUE = auto()
    """The pause is over."""


class Act(Enum):
    """What is to be done."""

    CONNECT = auto()
    ASK = auto()
    HANG_UP = auto()
    GO_LIVE = auto()
    GO_DOWN = auto()
    ASK_NO_MORE = auto()
    """Newcomers are given what there is, however old: asking twice over one connection ends it."""
    SUSPECT = auto()
    """It may have ended for being asked twice: another time in a row, and newcomers are given what there is as well."""
    WELCOME = auto()
    """Those who wait watch from now on."""
    REFUSE = auto()
    """Those who wait are told that the backend refused."""
    GIVE_UP = auto()
    """Those who wait are told that it did not answer."""
    BLAME = auto()
    """The first is told that it was its wish."""


class Step(NamedTuple):
    """Where an event leads, and what is done on the way, in this order."""

    to: Phase
    acts: tuple[Act, ...] = ()


TABLE: dict[tuple[Phase, Event], Step] = {
    (Phase.OPENING, Event.OPENED): Step(Phase.ASKING, (Act.ASK,)),
    (Phase.OPENING, Event.AGREED): Step(Phase.LIVE, (Act.GO_LIVE, Act.WELCOME)),
    (Phase.OPENING, Event.LOST): Step(Phase.PAUSED),
    (Phase.OPENING, Event.BARRED): Step(Phase.PAUSED, (Act.REFUSE,)),
    (Phase.ASKING, Event.AGREED): Step(Phase.LIVE, (Act.GO_LIVE, Act.WELCOME)),
    (Phase.ASKING, Event.REFUSED): Step(Phase.ENDING, (Act.REFUSE, Act.HANG_UP)),
    (Phase.ASKING, Event.UNANSWERED): Step(Phase.ENDING, (Act.HANG_UP,)),
    (Phase.ASKING, Event.LOST): Step(Phase.PAUSED),
    (Phase.ASKING, Event.BLAMED): Step(Phase.PAUSED, (Act.BLAME,)),
    (Phase.ENDING, Event.LOST): Step(Phase.PAUSED),
    (Phase.LIVE, Event.WANTED): Step(Phase.RENEWING, (Act.ASK,)),
    (Phase.LIVE, Event.LOST): Step(Phase.PAUSED, (Act.GO_DOWN,)),
    (Phase.LIVE, Event.BLAMED): Step(Phase.PAUSED, (Act.GO_DOWN, Act.BLAME)),
    (Phase.RENEWING, Event.AGREED): Step(Phase.LIVE, (Act.WELCOME,)),
    (Phase.RENEWING, Event.REFUSED): Step(Phase.LIVE, (Act.REFUSE,)),
    (Phase.RENEWING, Event.UNANSWERED): Step(Phase.LIVE, (Act.GIVE_UP,)),
    (Phase.RENEWING, Event.LOST): Step(Phase.PAUSED, (Act.GO_DOWN, Act.SUSPECT)),
    (Phase.RENEWING, Event.BLAMED): Step(Phase.PAUSED, (Act.GO_DOWN, Act.ASK_NO_MORE, Act.BLAME)),
    (Phase.PAUSED, Event.DUE): Step(Phase.OPENING, (Act.CONNECT,)),
}
"""Whatever else happens changes nothing."""


class Rest(Enum):
    """What a lane does while nothing happens to it."""

    NOTHING = auto()
    RETRY = auto()
    """It connects again after a pause."""
    LINGER = auto()
    """It ends after a while, unless somebody comes."""
    END = auto()
    """It ends now."""


FORSAKEN = {
    Phase.OPENING: Rest.END,
    Phase.ASKING: Rest.END,
    Phase.ENDING: Rest.END,
    Phase.LIVE: Rest.LINGER,
    Phase.RENEWING: Rest.LINGER,
    Phase.PAUSED: Rest.RETRY,  # who comes before that waits for it, and does not have it tried at once
    Phase.CLOSED: Rest.NOTHING,
}
"""What becomes of a lane that nobody watches or waits for."""


class Machine:
    """One lane's place in the table."""

    __slots__ = ("is_down", "phase", "word")

    def __init__(self) -> None:
        self.phase = Phase.OPENING
        self.word = State.CONNECTING.value
        """The state as stats show it, for who counts 100,000 lanes: made when it changes."""
        self.is_down = False
        """It was live, is not, and somebody may miss what comes meanwhile."""

    @property
    def state(self) -> State:
        """As stats show it."""
        if self.is_live:
            return State.LIVE
        if self.phase is Phase.CLOSED:
            return State.CLOSED
        return State.DOWN if self.is_down else State.CONNECTING

    @property
    def is_live(self) -> bool:
        """Whether the backend has agreed to what this connection carries."""
        return self.phase in (Phase.LIVE, Phase.RENEWING)

    @property
    def is_asking(self) -> bool:
        """Whether an answer of the backend is awaited."""
        return self.phase in (Phase.ASKING, Phase.RENEWING)

    def take(self, event: Event) -> tuple[Act, ...]:
        """Note what happened; gives what is to be done."""
        step = TABLE.get((self.phase, event))
        if step is None:
            return ()
        self.phase = step.to
        if Act.GO_DOWN in step.acts:
            self.is_down = True
        elif Act.GO_LIVE in step.acts:
            self.is_down = False
        self.word = self.state.value
        return step.acts

    def close(self) -> bool:
        """It is over; False if it was already."""
        was, self.phase = self.phase, Phase.CLOSED
        self.word = State.CLOSED.value
        return was is not Phase.CLOSED

    def rest(self, *, is_forsaken: bool) -> Rest:
        """What it does until something happens."""
        if is_forsaken:
            return FORSAKEN[self.phase]
        return Rest.RETRY if self.phase is Phase.PAUSED else Rest.NOTHING
