"""What next_turn promises, over random loads: a simulated clock, no threads."""
from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.scheduler import PATIENCE, UNHURRIED, Line, State, Turn, next_turn


@dataclass
class Person:
    """A client of the simulation: a frame follows the last one after `pause`; requests have steps left."""

    pause: float | None                        # None: no camera
    unhurried: bool = False
    steps: list[int] = field(default_factory=list)
    frame: float | None = None                 # since when one waits
    next_frame: float = 0.0
    request: float = 0.0


@dataclass
class Log:
    """Every turn: when it began, whose it was, how long it had waited, and who waited at that moment."""

    turns: list[tuple[float, Turn, float, int, int]] = field(default_factory=list)


def simulate(people: dict[str, Person], frame: float, step: float, end: float) -> Log:
    log, now, served = Log(), 0.0, frozenset[str]()
    while now < end:
        for person in people.values():
            if person.pause is not None and person.frame is None and now >= person.next_frame:
                person.frame = max(now if not log.turns else person.next_frame, person.next_frame)
        lines = tuple(Line(name, p.frame, p.unhurried, p.request if any(p.steps) else None)
                      for name, p in people.items())
        turn = next_turn(State(lines, served), now)
        if turn is None:
            now += 0.001
            continue
        person = people[turn.client]
        frames, requests = sum(line.frame is not None for line in lines), sum(
            line.request is not None for line in lines)
        since = person.frame if turn.is_frame else person.request
        assert since is not None, "a turn for somebody who waits for nothing"
        log.turns.append((now, turn, now - since, frames, requests))
        if turn.is_frame:
            now += frame
            served |= {turn.client}
            person.frame, person.next_frame = None, now + (person.pause or 0.0)
        else:
            now += step
            served = frozenset()
            place = next(i for i, left in enumerate(person.steps) if left)
            person.steps[place] -= 1
            person.request = now
    return log


people = st.lists(st.builds(Person, pause=st.sampled_from([None, 0.0, 0.01, 0.2]), unhurried=st.booleans(),
                            steps=st.lists(st.integers(1, 400), max_size=32)), min_size=1, max_size=6)
loads = st.tuples(people, st.sampled_from([0.01, 0.05]), st.sampled_from([0.02, 0.1, 0.5]))


@settings(max_examples=60, deadline=None)
@given(loads)
def test_frames_keep_half_of_the_turns_while_anyone_is_live(load: tuple[list[Person], float, float]) -> None:
    crowd, frame, step = load
    log = simulate({f"c{n}": p for n, p in enumerate(crowd)}, frame, step, 8.0)
    steps_in_a_row = 0
    for _, turn, _, frames, _ in log.turns:
        steps_in_a_row = 0 if turn.is_frame or not frames else steps_in_a_row + 1
        assert steps_in_a_row <= 1, "two steps of requests in a row while a frame waited"


@settings(max_examples=60, deadline=None)
@given(loads)
def test_nobody_waits_longer_than_a_round_over_the_clients(load: tuple[list[Person], float, float]) -> None:
    """In a round every waiting frame has one turn, and one client's request one step."""
    crowd, frame, step = load
    log = simulate({f"c{n}": p for n, p in enumerate(crowd)}, frame, step, 12.0)
    live = sum(p.pause is not None for p in crowd)
    asking = sum(bool(p.steps) for p in crowd)
    some = any(p.unhurried for p in crowd if p.pause is not None)
    one = frame * live + step
    for _, turn, waited, _, _ in log.turns:
        if turn.is_frame and not some:
            assert waited <= one + frame + 1e-6
        elif turn.is_frame:                    # one that gives way does so for a while
            assert waited <= UNHURRIED + one + frame + step + 1e-6
        else:
            assert waited <= PATIENCE + (asking + 1) * one + frame + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 32), min_size=2, max_size=5), st.booleans())
def test_requests_go_round_over_clients_however_many_one_of_them_has(counts: list[int], live: bool) -> None:
    crowd = {f"c{n}": Person(None, steps=[1000] * count) for n, count in enumerate(counts)}
    if live:
        crowd["camera"] = Person(0.0)
    log = simulate(crowd, 0.02, 0.1, 15.0)
    turns = [turn.client for _, turn, *_ in log.turns if not turn.is_frame]
    for name in (n for n in crowd if n != "camera"):
        assert abs(turns.count(name) - len(turns) / len(counts)) <= 1


def test_the_storm_that_starved_every_camera() -> None:
    """32 requests of one client at 0.1 s a step: live frames had no turn after the fourth second."""
    crowd = {"storm": Person(None, steps=[10_000] * 32), **{f"camera{n}": Person(0.0) for n in range(3)}}
    log = simulate(crowd, 0.03, 0.1, 20.0)
    for name in ("camera0", "camera1", "camera2"):
        seen = [at for at, turn, *_ in log.turns if turn == Turn(name, True)]
        assert max(b - a for a, b in zip(seen, seen[1:], strict=False)) <= 3 * 0.03 + 0.1 + 1e-6
        assert seen[-1] > 19.5
    assert sum(not turn.is_frame for _, turn, *_ in log.turns) > 50, "and the requests go on"


def test_nobody_waits_and_there_is_no_turn() -> None:
    assert next_turn(State(()), 0.0) is None
    assert next_turn(State((Line("a"),)), 0.0) is None
