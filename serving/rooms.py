"""Rooms: whoever presents is watched by a class. The engine knows nothing of it.

What the presenter is told is overheard and put on the room's stage; from there fanout.py brings all viewers
up to date. A viewer's question becomes an ordinary one about a picture of the presenter.
"""
from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from functools import partial
from threading import RLock
from time import monotonic

import segno
from flask import request

from models.base import BadInput
from serving import codes
from serving.access import role
from serving.engine import Engine
from serving.fanout import SOON, Fanout, Message, Seat
from serving.lesson import Crowded, Fields, Front, Lesson
from serving.questions import Shared
from serving.room import Room, unused
from serving.session import Gone, Session

Handler = Callable[[Session, Fields], None]

AWAY = 60.0                                    # seconds that a room waits for its presenter to come back
TABS = ("detect", "classify", "caption", "whatif")
FORBIDDEN = {"frame": "shows pictures", "configure": "chooses what is looked for", "edit": "erases",
             "present": "presents"}
OF_PRESENTER = ("show", "poll", "reveal", "borrow")
OF_VIEWER = ("hand", "tap", "lend")


class Viewer(BadInput):
    """Only the presenter may do that."""

    code = "viewer"


class TooFast(BadInput):
    """Too many wrong codes."""

    code = "too_fast"


class Rooms:
    """All rooms of one server."""

    def __init__(self, front: Front):
        self._front, self._settings = front, front.settings
        self._lock = RLock()                   # no client is told anything while it is held
        self._rooms: dict[str, Room] = {}      # by code
        self._of: dict[str, Room] = {}         # by client, presenters and viewers
        self._tries = codes.Tries()
        self._fan = Fanout(front.send, front.hang_up, self._settings.silence, self._look_after)
        self._lesson = Lesson(front, self._lock, self._fan.news)

    @property
    def viewers(self) -> int:
        """How many watch, in all rooms."""
        return sum(len(room.viewers) for room in tuple(self._rooms.values()))

    def close(self) -> None:
        self._fan.close()

    def known(self, code: str, address: str) -> bool:
        """Whether there is such a room; who asks too often is told nothing."""
        return self._found(code, address) is not None

    # What comes from clients --------------------------------------------------------------------------------

    def handler(self, session: Session, event: str) -> Handler | None:
        """Who handles an event instead of the front; None when that is nothing of a room's."""
        room = self._of.get(session.client)
        watches = session.client in room.viewers if room else False
        if event in FORBIDDEN and (watches or _came_to_watch()):
            lends = room is not None and room.lender == session.client and event == "frame"
            return partial(self._lesson.lent_frame, room) if lends and room else partial(self._refused, event)
        if event in ("present", "join", "leave", "tab"):
            return getattr(self, f"_on_{event}")  # type: ignore[no-any-return]
        if event in (*OF_PRESENTER, *OF_VIEWER):
            of = self._presented(session) if event in OF_PRESENTER else self._watched(session)
            return partial(getattr(self._lesson, f"on_{event}"), of)
        if event == "explain" and room:
            return partial(self._lesson.ask, room) if watches else self._overhear_question
        return None

    def asker(self, session: Session) -> Engine | Shared:
        """Who is asked when this client asks."""
        room = self._of.get(session.client)
        return room.questions if room and session.client in room.viewers else self._front.engine

    def _refused(self, event: str, session: Session, m: Fields) -> None:
        problem = Viewer(f"you watch this room, and only its presenter {FORBIDDEN[event]}; leave the room to "
                         "do that yourself")
        if event != "frame":
            raise problem
        seq = {"seq": m["seq"]} if isinstance(m.get("seq"), int) else {}
        self._front.send(session.client, "error", {**seq, "code": problem.code, "message": str(problem)})

    def _on_present(self, session: Session, m: Fields) -> None:
        """Open a room, or go on with the one whose secret is known."""
        with self._lock:
            room = self._of.get(session.client)
            if room is None and m.get("secret") is not None:
                room = self._again(session, m)
            elif room is None:
                room = self._opened(session)
        self._front.send(session.client, "room", {**room.describe(), "secret": room.secret,
                                                  "qr": drawn(room.link)})
        self._front.send(session.client, "hands", room.listing())
        self._heard(room, "ready", self._front.ready(session))
        self._tell(room)

    def _again(self, session: Session, m: Fields) -> Room:
        room = self._found(m.get("code"), _address())
        if room is None or not isinstance(m["secret"], str) or not secrets.compare_digest(
                m["secret"].encode(), room.secret.encode()):
            raise Gone("that room is closed, or its secret is another one; open a new room")
        if room.presenter is not None:         # its old connection is not known to be dead yet
            self._of.pop(room.presenter, None)
        room.presenter, room.gone = session.client, None
        self._of[session.client] = room
        room.begin_anew()
        for client in room.viewers:            # theirs are named by the old numbers
            if client in self._front.sessions:
                self._front.sessions[client].leave()
        return room

    def _opened(self, session: Session) -> Room:
        if len(self._rooms) >= self._settings.rooms:
            raise Crowded(f"{len(self._rooms)} rooms are open, more than this server takes; close one, or "
                          "watch another's")
        code = unused(self._rooms)
        questions = Shared(self._front.engine, f"room {code}")
        room = Room(f"{self._settings.address}/join/{code}", session.client, questions, code)
        self._rooms[code] = self._of[session.client] = room
        return room

    def _on_join(self, session: Session, m: Fields) -> None:
        """Watch a room; whoever comes back with its token has its hand and its tap again."""
        room = self._found(m.get("code"), _address())
        if room is None:
            raise Gone("no room has that code; look at the four words again, or ask whether the room is "
                       "still open")
        old = self._of.get(session.client)
        if old is not None and old.presenter == session.client:
            raise BadInput("you present a room yourself; leave it before you watch another")
        if old is not None:
            self._leave(session.client)
        with self._lock:
            if self.viewers >= self._settings.viewers:
                raise Crowded(f"{self.viewers} people watch already, more than this server takes; look on "
                              "with somebody")
            you = m.get("you") if isinstance(m.get("you"), str) and len(m["you"]) <= 40 else ""
            room.viewers[session.client] = you = you or secrets.token_urlsafe(12)
            self._of[session.client] = room

        def greeting() -> Message:
            return "joined", {**room.describe(), "you": you, "ready": room.stage["ready"]}

        self._fan.seat(Seat(session.client, room.stage, self._front.wire_of(session.client), greeting))
        self._tell(room)

    def _found(self, code: object, address: str) -> Room | None:
        """The room of that code, looked up only for those who have not guessed too often."""
        if not self._tries.allowed(address):
            raise TooFast("too many wrong codes came from your address, or from everywhere; wait a minute, "
                          "then type the four words again")
        room = self._rooms.get(codes.read(code))
        if room is None:
            self._tries.wrong(address)
        return room

    def _on_leave(self, session: Session, m: Fields) -> None:
        self._leave(session.client)

    def gone(self, client: str) -> None:
        """A client is not connected any more: a viewer is out, a presenter may come back."""
        with self._lock:
            room = self._of.get(client)
            presents = room is not None and room.presenter == client
            if presents and room:
                del self._of[client]
                room.presenter, room.gone = None, monotonic()
        if presents and room:
            self._lesson.returned(room)
            self._tell(room)
        elif room:
            self._leave(client)

    def _leave(self, client: str) -> None:
        with self._lock:
            room = self._of.pop(client, None)
            if room is None:
                return
            if room.presenter != client:
                room.viewers.pop(client, None)
                room.offers.pop(client, None)
                lent = room.lender == client
        if room.presenter == client:
            return self._close(room, "the presenter closed this room")
        self._fan.leave(client)
        room.questions.stop(client)
        if lent:
            self._lesson.returned(room)
        self._tell(room)

    def _close(self, room: Room, why: str) -> None:
        with self._lock:
            self._rooms.pop(room.code, None)
            clients = [room.presenter, *room.viewers]
            room.viewers.clear()
            for client in clients:
                self._of.pop(client or "", None)
        room.questions.close()
        for client in filter(None, clients):
            self._fan.leave(client)
            self._front.send(client, "ended", {"code": room.code, "message": why})

    def _look_after(self) -> None:
        """Rooms whose presenter does not come back are closed."""
        for room in tuple(self._rooms.values()):
            if room.gone is not None and monotonic() - room.gone > AWAY:
                self._close(room, "the presenter has gone and did not come back")

    def _tell(self, room: Room) -> None:
        """How many watch and whether the presenter is there, to everybody."""
        said = ("room", room.describe())
        room.stage.put(room=said)
        self._fan.news()
        if room.presenter:
            self._front.send(room.presenter, *said)
            self._front.send(room.presenter, "lent", room.lending())

    # What the presenter shows -------------------------------------------------------------------------------

    def pictured(self, client: str, seq: int, jpeg: bytes, kept: bool) -> None:
        """A picture of a client is on its way to the engine."""
        room = self._of.get(client)
        if room and room.presenter == client:
            with self._lock:
                room.remember(seq, jpeg)
                room.paused = room.paused or kept

    def overhear(self, client: str, event: str, fields: Fields) -> None:
        """What a client is told; what a presenter is told is shown to its room."""
        room = self._of.get(client)
        if room is not None and room.presenter == client:
            self._heard(room, event, fields)

    def _heard(self, room: Room, event: str, fields: Fields) -> None:
        if event in ("result", "error", "dropped"):
            self._lesson.give_back(room, event, fields)
        with self._lock:
            poll = room.poll
            if poll and event == "explanation" and fields.get("seq") == poll.seq and not (
                    _is_aside(room, fields) or fields.get("edited")):
                poll.explanation = fields
                if poll.shown:
                    room.stage.put(taps=("taps", poll.describe()))
            shown = fields if poll is None or poll.shown else None
        if event == "ready":
            self._see_ready(room, fields)
        elif event in ("result", "explanation") and shown is not None and not _is_aside(room, fields):
            self._see(room, event, fields)

    def _see_ready(self, room: Room, fields: Fields) -> None:
        task = fields["configured"]["task"]
        tab: dict[str, Message | None] = {} if task == room.task else {"tab": ("tab", {"tab": task})}
        room.stage.put(ready=("ready", fields), **tab)
        room.task = task
        self._fan.news()

    def _see(self, room: Room, event: str, fields: Fields) -> None:
        """A result or an explanation of the presenter's page goes on the stage."""
        said, put = {name: value for name, value in fields.items() if name != "id"}, room.stage.put
        now = room.stage["picture"]
        if event == "result" and "edited" not in fields and "id" not in fields:
            with self._lock:
                picture = room.pictures.get(fields["seq"])
                if picture is None:
                    return
                ended = room.poll is not None and room.poll.seq != fields["seq"]
                room.poll = None if ended else room.poll
            shown = {"seq": fields["seq"], "jpeg": picture.jpeg, "kept": "picture" in fields}
            put(picture=("picture", shown), result=("result", said), explanation=None, edit=None, edited=None,
                shown=None)
            if ended:
                put(poll=("poll", {"seq": None}), taps=None)
            # Its map comes at once in most cases, and then both go out together.
            return self._fan.news(SOON if fields.get("follows") else 0.0)
        if now is None or now["seq"] != fields.get("seq"):
            return                             # of a picture that is not on the stage any more
        if event == "result":
            put(edited=None, edit=("result", said))
        else:
            put(**{"edited" if fields.get("edited") else "explanation": ("explanation", said)})
        self._fan.news()

    def _overhear_question(self, session: Session, m: Fields) -> None:
        """The presenter asks: perhaps for its own page alone, as for a comparison."""
        if m.get("aside") is True and isinstance(m.get("id"), int | str):
            self._of[session.client].aside(m["id"])
        self._front.handle("explain", session, m)

    def _on_tab(self, session: Session, m: Fields) -> None:
        room = self._presented(session)
        if m.get("tab") not in TABS:
            raise BadInput(f"tab must be one of {', '.join(TABS)}, got {str(m.get('tab'))[:40]!r}")
        room.stage.put(tab=("tab", {"tab": m["tab"]}))
        self._fan.news()

    def _presented(self, session: Session) -> Room:
        """The room that this client presents."""
        room = self._of.get(session.client)
        if room is None:
            raise BadInput("you present no room; open one with `present` first")
        if room.presenter != session.client:
            raise Viewer("you watch this room, and only its presenter does that; leave the room to do it "
                         "yourself")
        return room

    def _watched(self, session: Session) -> Room:
        """The room that this client watches."""
        room = self._of.get(session.client)
        if room is None or session.client not in room.viewers:
            raise BadInput("you watch no room; join one with `join` and its code first")
        return room


def drawn(link: str) -> str:
    """A link as a QR code: SVG, as large as it is shown."""
    out = io.BytesIO()
    segno.make(link, error="m").save(out, kind="svg", xmldecl=False, omitsize=True, border=4, nl=False)
    return out.getvalue().decode()


def _is_aside(room: Room, fields: Fields) -> bool:
    return fields.get("id") in room.asides or bool(fields.get("check"))


def _came_to_watch() -> bool:
    """Whether this client was let in by a room's link, and by nothing else."""
    return role(request.environ) == "viewer"


def _address() -> str:
    return request.remote_addr or ""
