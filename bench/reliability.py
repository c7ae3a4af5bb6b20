"""What was done to break it, what must hold, what was measured: docs/RELIABILITY.md, made by its tests.

    python -m bench.reliability

Runs the tests that stand for each case and writes what they measured. A test that fails is written as failed.
"""
from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from bench import machine, soak

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "RELIABILITY.md"
LIMITS = """\
Cases 1, 3, 4, 9, 10 and 12 are tried without a network, 9 and 10 with made-up clients, 1 five times and not
two hundred; the others over real sockets or in a real browser. Where a line says no figure, none was
measured."""


class Case(NamedTuple):
    """One way to break it: what is done, what must hold, and the tests that do it, as file::name."""

    what: str
    holds: str
    tests: tuple[str, ...] = ()


SERVING, BROWSER = "tests/serving/test_", "tests/browser/test_"
CASES: dict[str, Case] = {
    "1": Case("a client goes in the middle of everything, again and again",
              "no session, picture or queue of its own stays",
              (f"{SERVING}credits.py::test_leaving_in_the_middle_of_everything_leaves_nothing_behind",)),
    "2": Case("the server starts anew, the client connects again", "live again by itself, settings restored",
              (f"{BROWSER}live.py::test_a_server_that_comes_back_is_live_again_by_itself",
               f"{BROWSER}page.py::test_server_restart_and_recovery")),
    "3": Case("empty, text, null, truncated JPEG, PNG, random bytes, wrong types",
              "an error with its seq, connection and credit kept",
              (f"{SERVING}events.py::test_a_bad_frame_gets_its_credit_back_and_the_connection_stays",
               f"{SERVING}credits.py::test_every_credit_comes_back_exactly_once_whatever_is_sent",
               f"{SERVING}frames.py::test_random_damage_is_a_picture_or_a_sentence_never_anything_else")),
    "4": Case("25 megapixels under the byte limit, a forged 60000x60000 header", "refused before decoding",
              (f"{SERVING}frames.py::test_a_bomb_is_refused_without_the_memory_it_asks_for",)),
    "5": Case("200 MB messages, endless fragments, forged attachments, deep JSON",
              "closed, under 20 MB of memory",
              (f"{SERVING}attacks.py::test_a_message_of_200_megabytes_costs_nothing",
               f"{SERVING}attacks.py::test_endless_fragments_cost_nothing",
               f"{SERVING}attacks.py::test_attachments_that_were_forged_are_not_collected",
               f"{SERVING}attacks.py::test_deep_json_is_a_sentence_or_nonsense")),
    "6": Case("300 frames at once, a flood of frames", "bounded, then disconnected; others keep their turns",
              (f"{SERVING}attacks.py::test_frames_as_fast_as_they_go_do_not_pile_up",
               f"{SERVING}bounds.py::test_more_than_anybody_needs_is_refused_in_words_and_then_ended",
               f"{SERVING}two_frames.py::test_a_flood_from_one_costs_the_other_no_more_than_turns")),
    "7": Case("a client that never reads", "dropped, memory flat",
              (f"{SERVING}attacks.py::test_who_never_reads_is_hung_up_on",
               f"{SERVING}bounds.py::test_who_reads_nothing_is_hung_up_on")),
    "8": Case("a thin line, 20 kB a second", "smaller pictures, none waits in the page, still connected",
              (f"{BROWSER}live.py::test_a_thin_line_gets_smaller_pictures_and_is_never_stuffed",)),
    "9": Case("a storm of explanations", "live frames keep half the turns",
              (f"{SERVING}policy.py::test_the_storm_that_starved_every_camera",
               f"{SERVING}policy.py::test_frames_keep_half_of_the_turns_while_anyone_is_live")),
    "10": Case("many cameras; one more than there are places", "turns go round; the last one is told",
               (f"{SERVING}scheduler.py::test_clients_take_turns_however_fast_one_of_them_is",
                f"{SERVING}credits.py::test_only_so_many_pages_at_once",
                f"{SERVING}bounds.py::test_the_page_that_is_one_too_many_is_told_and_hung_up_on")),
    "11": Case("a model that is missing, corrupt, has a wrong hash", "starts, live 200, ready 503 and why",
               (f"{SERVING}prometheus.py::test_a_model_that_does_not_come_keeps_the_server_alive_and_is_named",
                f"{SERVING}prometheus.py::test_ready_says_what_is_missing")),
    "12": Case("an exception in inference", "one error, the worker lives on, no credit hangs",
               (f"{SERVING}events.py::test_a_failure_nobody_foresaw_is_calm_outside_and_whole_in_the_log",
                f"{SERVING}scheduler.py::test_an_exception_is_answered_and_the_thread_lives_on")),
    "13": Case("SIGTERM with open sockets", "everybody is told, what is under way is answered, gone in 5 s",
               (f"{SERVING}stopping.py::test_everybody_is_told_and_what_is_under_way_is_answered",
                f"{SERVING}stopping.py::test_a_step_that_does_not_end_keeps_nobody")),
    "14": Case("the interpreter's lock held for long", "no connection is lost",
               (f"{SERVING}stopping.py::test_holding_the_interpreter_costs_nobody_the_connection",)),
    "15": Case("foreign Origin or Host, no or a wrong token, an event before connecting", "refused",
               (f"{SERVING}access.py::test_foreign_pages_and_names_are_refused_with_the_token_too",
                f"{SERVING}access.py::test_without_the_token_nothing_is_shown",
                f"{SERVING}access.py::test_nobody_speaks_before_joining",
                f"{SERVING}wire.py::test_only_our_own_pages_may_connect")),
    "16": Case("an open address without a token", "does not start, and says why",
               (f"{SERVING}access.py::test_an_open_address_without_a_token_is_refused",)),
    "17": Case("2,000 malformed packets", "alive, a few lines of log",
               (f"{SERVING}attacks.py::test_two_thousand_malformed_packets_are_a_few_lines_in_the_log",)),
    "18": Case("camera denied, missing, unplugged, insecure", "its own message",
               (f"{BROWSER}page.py::test_each_camera_problem_has_its_own_words",
                f"{BROWSER}page.py::test_a_refused_camera_says_what_to_do")),
    "19": Case("a page in the background", "sends nothing, resumes fresh",
               (f"{BROWSER}live.py::test_a_hidden_page_takes_nothing_and_goes_on_when_it_is_seen",)),
    "20": Case("no network", "no outbound connection, nothing is started",
               (f"{SERVING}private.py::test_it_speaks_to_nobody_and_starts_nothing",)),
    "21": Case("honest use for long (`python -m bench.soak`)", "memory and latency flat"),
    "22": Case("everything that was looked at", "no picture's bytes on disk or in the log",
               (f"{SERVING}private.py::test_no_picture_is_on_disk_or_in_the_log",
                f"{SERVING}wire.py::test_no_picture_is_written_to_disk_or_to_the_log")),
    "idle connections": Case("hundreds that say nothing; requests that drip in", "ended, no thread stays", (
        f"{SERVING}bounds.py::test_connections_are_few_and_those_that_say_nothing_end",
        f"{SERVING}bounds.py::test_a_request_that_drips_in_is_not_waited_for",
        f"{SERVING}bounds.py::test_without_descriptors_the_server_pauses_and_goes_on")),
    "odd values": Case("integers of thousands of digits, lone surrogates", "a sentence, shortly", (
        f"{SERVING}bounds.py::test_values_that_cannot_be_taken_are_answered_shortly",
        f"{SERVING}bounds.py::test_a_frame_whose_number_is_too_long_to_read_gets_its_credit_back")),
    "brushes": Case("huge erasing, many at once", "bounded, stopped in pieces, others do not wait", (
        f"{SERVING}brush.py::test_the_work_of_a_fill_is_bounded",
        f"{SERVING}brush.py::test_slow_fills_of_some_keep_no_other_waiting")),
    "own models": Case("a .keras file with code in it", "refused, not run",
                       ("tests/models/captioner/test_own.py::test_code_in_a_file_is_not_run",)),
    "rooms": Case("a viewer tries a presenter's events; guessed codes", "refused; limited", (
        f"{SERVING}rooms.py::test_a_presenters_events_are_refused",
        f"{SERVING}rooms.py::test_guessed_codes_are_limited_and_right_ones_too_then")),
}


class Run(NamedTuple):
    """What became of one test; its parameters are runs of their own."""

    test: str
    passed: bool
    measured: str


def run(tests: list[str]) -> list[Run]:
    """The tests, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = [sys.executable, "-m", "pytest", f"--junitxml={report}", "-o", "junit_family=xunit1", *tests]
        subprocess.run(words, cwd=ROOT, check=False)
        return list(_read(report))


def _read(report: Path) -> Iterator[Run]:
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        measured = [p.get("value", "") for p in case.iter("property") if p.get("name") == "measured"]
        yield Run(name, not any(case.find(bad) is not None for bad in ("failure", "error", "skipped")),
                  "; ".join(measured))


def table(runs: list[Run]) -> Iterator[str]:
    """A line for each case; where nothing was measured, how many tests held."""
    yield "| | what is done | what must hold | measured | by |"
    yield "|---|---|---|---|---|"
    for number, case in CASES.items():
        own = [r for r in runs if r.test in case.tests]
        held = sum(r.passed for r in own)
        figures = [r.measured for r in own if r.measured]
        told = f"{held} of {len(own)} held" if case.tests else soak.told() or "not measured yet"
        by = ", ".join(f"`{t.partition('::')[2]}`" for t in case.tests)
        yield f"| {number} | {case.what} | {case.holds} | {'; '.join([told, *_worst(figures)])} | {by} |"


def _worst(figures: list[str]) -> list[str]:
    """Of figures that say how far a server grew, the largest; others as they are."""
    return sorted(figures, key=lambda f: float(f.split()[0]) if f[:1].isdigit() else 0.0)[-1:]


def main() -> int:
    runs = run([test for case in CASES.values() for test in case.tests])
    where = machine.sentence(machine.described())
    made = f"Written by `python -m bench.reliability` from the tests it names, on {where}."
    text = ["# Reliability", "", made, "", LIMITS, "", *table(runs), ""]
    OUT.write_text("\n".join(text), "utf-8")
    print(f"written: {OUT.relative_to(ROOT)}")
    ran = {r.test for r in runs}
    missing = [test for case in CASES.values() for test in case.tests if test not in ran]
    print("\n".join(f"did not run: {test}" for test in missing), end="\n" * bool(missing))
    return int(bool(missing) or not all(r.passed for r in runs))


if __name__ == "__main__":
    sys.exit(main())
