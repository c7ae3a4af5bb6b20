"""What happens in a room: questions, raised hands, polls, a lent camera."""
from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, Protocol

from explainers import find_method, parse
from models.base import BadInput, checked
from serving.engine import Engine, Explain, Full, Wish
from serving.frames import check_live, jpeg_header
from serving.messages import failure
from serving.pictures import Kept
from serving.room import HANDS, OFFERS, PICTURES, Hand, Poll, Room
from serving.session import Gone, Session
from serving.settings import Settings
from serving.websocket import Wire

Fields = dict[str, Any]

LONGEST_NOTE = 140
TASKS = ("detect", "classify", "caption")


class Crowded(BadInput):
    """There are as many as this server takes."""

    code = "busy"


class Front(Protocol):
    """What rooms need of whoever speaks with clients."""

    settings: Settings
    engine: Engine
    sessions: dict[str, Session]

    def send(self, client: str, event: str, fields: Fields) -> None: ...
    def handle(self, event: str, session: Session, m: Fields) -> None: ...
    def ready(self, session: Session) -> Fields: ...
    def wire_of(self, client: str) -> Wire | None: ...
    def hang_up(self, client: str) -> None: ...


class Lesson:
    """What presenter and viewers do in their rooms."""

    def __init__(self, front: Front, lock: RLock, news: Callable[[], None]):
        self._front, self._lock, self._news = front, lock, news

    # What viewers ask and find ------------------------------------------------------------------------------

    def ask(self, room: Room, session: Session, m: Fields) -> None:
        """A viewer's own question, about a picture that the presenter showed."""
        self._take_picture(room, session, m.get("seq"))
        left_out = ("settings",) if self._is_here(m.get("model")) else ("settings", "task", "model")
        presenter = self._front.sessions.get(room.presenter or "")
        if presenter:                          # what is not said is as the presenter has it
            session.settle(session.want(presenter.wish), came=True)
        self._front.handle("explain", session, {k: v for k, v in m.items() if k not in left_out})

    def _take_picture(self, room: Room, session: Session, seq: Any) -> Kept:
        """From now on the viewer may come back to that picture, as to one of its own."""
        presenter = self._front.sessions.get(room.presenter or "")
        with self._lock:
            picture = room.pictures.get(seq) if isinstance(seq, int) else None
        if isinstance(seq, int) and presenter and seq in presenter.kept:
            picture = presenter.picture(seq)
        mine = session.picture(seq) if seq in session.kept else None
        if picture is None and mine is None:
            raise Gone(f"picture {str(seq)[:40]!r} of this room is not here any more; ask about the one on "
                       "the stage")
        if picture is not None and (mine is None or mine.jpeg is not picture.jpeg):
            mine = session.keep(seq, picture.jpeg)
        assert mine is not None
        if picture is not None and mine.edits is not picture.edits:
            session.erase(seq, mine, picture.edits)
        return mine

    def on_hand(self, room: Room, session: Session, m: Fields) -> None:
        """Show the presenter what one found; without a picture, take the hand down."""
        token = room.viewers[session.client]
        hand = None if m.get("seq") is None else self._hand(room, session, m)
        with self._lock:
            room.hands.pop(token, None)
            if hand is not None:
                room.hands[token] = hand
            while len(room.hands) > HANDS:
                room.hands.popitem(last=False)
        self._count_hands(room)

    def _hand(self, room: Room, session: Session, m: Fields) -> Hand:
        picture = self._take_picture(room, session, m["seq"])
        presenter = self._front.sessions.get(room.presenter or "")
        now = presenter.wish if presenter else session.wish
        task, model, settings = now.task, now.model, now.settings
        if m.get("task") in TASKS and self._is_here(m.get("model")):
            task, model, settings = m["task"], m["model"], {}
        method, note, target = m.get("method"), m.get("note") or "", m.get("target") or None
        if not isinstance(method, str):
            raise BadInput(f"method must be a method's name, got {str(method)[:40]!r}; say how you found it")
        if not isinstance(note, str) or len(note) > LONGEST_NOTE or not isinstance(target, str | None):
            raise BadInput(f"note and target must be texts, the note of {LONGEST_NOTE} letters at most; say "
                           "it shorter")
        found = find_method(method, task)
        params = m.get("params") or {}
        if not isinstance(params, dict):
            raise BadInput(f"params must be names with values, got {str(params)[:40]!r}")
        wish = Wish(task, model, settings, found.name, checked(found.parameters, params, found.title),
                    parse(target, task))
        edits = picture.edits if m.get("edited") is True else None
        return Hand(next(room.numbers), m["seq"], picture, edits, wish, " ".join(note.split()))

    def _is_here(self, model: Any) -> bool:
        return isinstance(model, str) and self._front.engine.describe(model) is not None

    def _count_hands(self, room: Room) -> None:
        if room.presenter:
            self._front.send(room.presenter, "hands", room.listing())

    def on_show(self, room: Room, session: Session, m: Fields) -> None:
        """Show what a hand found to everybody, or with `peek` to the presenter alone."""
        peek = m.get("peek") is True
        with self._lock:
            token = next((t for t, hand in room.hands.items() if hand.number == m.get("hand")), None)
            if token is None:
                raise Gone(f"hand {str(m.get('hand'))[:40]!r} is not up any more; open another one")
            hand = room.hands[token] if peek else room.hands.pop(token)
        said = {**hand.describe(), "jpeg": hand.picture.jpeg, "peek": peek}
        self._front.send(session.client, "shown", said)
        if not peek:
            room.stage.put(shown=("shown", said))
            self._news()
            self._count_hands(room)

        def hear(event: str, fields: Fields) -> None:
            told = {"seq": hand.seq, **fields, "hand": hand.number}
            self._front.send(session.client, event, told)
            if event == "explanation" and not peek:
                room.stage.put(explanation=(event, told))
                self._news()

        try:                                   # it was worked out before, for whoever found it
            self._front.engine.submit(session.client, ("hand", hand.number),
                                      Explain(hand.picture.jpeg, hand.wish, hand.edits), hear)
        except Full:
            raise Crowded("too many explanations are under way; stop some, then open the hand again"
                          ) from None

    # Polls --------------------------------------------------------------------------------------------------

    def on_poll(self, room: Room, session: Session, m: Fields) -> None:
        """Ask where it looks: the picture stands still until the map is shown. Without one the poll ends."""
        seq = m.get("seq")
        if seq is None:
            with self._lock:
                room.poll = None
            room.stage.put(poll=("poll", {"seq": None}), taps=None)
            return self._polled(room)
        kept = session.picture(seq) if seq in session.kept else None
        if kept is None and isinstance(seq, int):
            kept = room.pictures.get(seq)
        if kept is None:
            raise Gone(f"picture {str(seq)[:40]!r} is not here any more; freeze one and ask about that")
        shown, e, result = (room.stage[name] for name in ("picture", "explanation", "result"))
        same = shown is not None and shown["seq"] == seq
        with self._lock:
            room.poll = Poll(seq, explanation=e if same else None,
                             size=tuple(result["size"]) if same and result else _size(kept.jpeg))
        if not same:
            still = {"seq": seq, "jpeg": kept.jpeg, "kept": True}
            room.stage.put(picture=("picture", still), result=None, edit=None, edited=None)
        room.stage.put(shown=None, explanation=None, poll=("poll", {"seq": seq}))
        self._polled(room)

    def on_tap(self, room: Room, session: Session, m: Fields) -> None:
        x, y = m.get("x"), m.get("y")
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in (x, y)):
            raise BadInput(f"x and y must be shares of the picture from 0 to 1, got {str((x, y))[:60]}")
        with self._lock:
            poll = room.poll
            if poll is None or poll.shown:
                raise BadInput("nobody asks where it looks at the moment; wait for the next question")
            poll.taps[room.viewers[session.client]] = (float(x), float(y))  # type: ignore[arg-type]
            while len(poll.taps) > 4 * self._front.settings.viewers:
                poll.taps.popitem(last=False)
        self._polled(room)

    def on_reveal(self, room: Room, session: Session, m: Fields) -> None:
        """Everybody sees the map, and where everybody tapped."""
        with self._lock:
            poll = room.poll
            if poll is None:
                raise BadInput("there is no question whose answers could be shown; ask where it looks first")
            poll.shown = True
        if poll.explanation is not None:
            said = {name: value for name, value in poll.explanation.items() if name != "id"}
            room.stage.put(explanation=("explanation", said))
        self._polled(room)

    def _polled(self, room: Room) -> None:
        """The news of the poll, to everybody."""
        with self._lock:
            poll = room.poll
            if poll:
                room.stage.put(taps=("taps", poll.describe()))
        self._news()
        if room.presenter:
            self._front.send(room.presenter, "poll", {"seq": poll.seq if poll else None})
            if poll:
                self._front.send(room.presenter, "taps", poll.describe())

    # A phone as camera --------------------------------------------------------------------------------------

    def on_lend(self, room: Room, session: Session, m: Fields) -> None:
        """Offer one's camera, or take it back."""
        stops = m.get("on") is False
        with self._lock:
            if not stops and session.client not in room.offers and len(room.offers) >= OFFERS:
                raise Crowded(f"{OFFERS} cameras are offered already; wait until one is taken")
            if stops:
                room.offers.pop(session.client, None)
            else:
                room.offers.setdefault(session.client, next(room.numbers))
        if stops and room.lender == session.client:
            self.returned(room)
        self._say_lent(room)

    def on_borrow(self, room: Room, session: Session, m: Fields) -> None:
        """Take an offered camera, go on with the one that is borrowed, or give it back."""
        goes_on = room.lender is not None and m.get("offer") is None and m.get("on") is not False
        room.paused = False
        if not goes_on:
            self.returned(room)
        if not goes_on and m.get("on") is not False:
            with self._lock:
                wanted = m.get("offer")
                lender = next((c for c, n in room.offers.items() if wanted in (None, n)), None)
                if lender is None:
                    raise Gone("that camera is not offered any more; choose another one")
                room.lender = lender
                del room.offers[lender]
            self._front.send(lender, "lent", {"on": True})
        self._say_lent(room)

    def returned(self, room: Room) -> None:
        """The lender's pictures do not count any more."""
        with self._lock:
            lender, room.lender = room.lender, None
            room.lent.clear()
        if lender:
            self._front.send(lender, "lent", {"on": False})

    def _say_lent(self, room: Room) -> None:
        if room.presenter:
            self._front.send(room.presenter, "lent", room.lending())

    def lent_frame(self, room: Room, session: Session, m: Fields) -> None:
        """A picture of the lender, which becomes one of the presenter's."""
        presenter, seq = self._front.sessions.get(room.presenter or ""), m.get("seq")
        whose = {"seq": seq} if isinstance(seq, int) else {}
        try:
            if not isinstance(seq, int) or isinstance(seq, bool):
                raise BadInput(f"seq must be a whole number, got {str(seq)[:40]!r}; number the frames")
            if presenter is None:
                raise Crowded("the presenter is away; wait until it is back")
            jpeg = check_live(m.get("jpeg"), self._front.settings)
        except BadInput as problem:
            return self._front.send(session.client, "error", {**whose, "lent": True, **failure(problem)})
        if room.paused:                        # else it would take the place of the still
            said = {"code": "newer",
                    "message": "the presenter shows a picture that stands still; wait a moment"}
            return self._front.send(session.client, "dropped", {**whose, "lent": True, **said})
        with self._lock:
            ours = next(room.frames)
            room.lent[ours] = seq
            while len(room.lent) > PICTURES:
                room.lent.popitem(last=False)
        self._front.send(presenter.client, "picture", {"seq": ours, "jpeg": jpeg, "lent": True})
        self._front.handle("frame", presenter, {"seq": ours, "jpeg": jpeg})

    def give_back(self, room: Room, event: str, fields: Fields) -> None:
        """The answer to a lent picture is the lender's credit too."""
        with self._lock:
            seq = room.lent.pop(fields.get("seq", 0), None)
            lender = room.lender
        if seq is not None and lender:
            said: Fields = {name: fields[name] for name in ("code", "message", "ms") if name in fields}
            self._front.send(lender, event, {**said, "seq": seq, "lent": True})


def _size(jpeg: bytes) -> tuple[int, int]:
    height, width, _ = jpeg_header(jpeg)
    return width, height
