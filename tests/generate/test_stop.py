"""Stop strings: never emitted, whatever pieces the text comes in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pocketglm.generate.stop import StopMatcher, overlap


def run(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    shown = "".join(matcher.feed(piece) for piece in pieces)
    return shown + ("" if matcher.matched else matcher.flush()), matcher.matched


def test_a_stop_string_over_several_pieces_is_held_back_then_dropped() -> None:
    matcher = StopMatcher(["\nUser:"])
    assert matcher.feed("Hello\nUs") == "Hello"
    assert matcher.feed("er") == ""
    assert matcher.feed(": hi") == ""
    assert matcher.matched == "\nUser:"
    assert matcher.feed("more") == ""


def test_a_false_alarm_is_shown_in_full() -> None:
    matcher = StopMatcher(["\nUser:"])
    assert matcher.feed("a\nUs") == "a"
    assert matcher.feed("ual") == "\nUsual"


def test_the_earliest_stop_wins_and_of_those_the_longest() -> None:
    assert run(["one END two STOP"], ["STOP", "END"]) == ("one ", "END")
    assert run(["one ENDED"], ["END", "ENDED"]) == ("one ", "ENDED")


def test_what_is_held_back_at_the_end_is_flushed() -> None:
    assert run(["abc<", "|"], ["<|end|>"]) == ("abc<|", None)


def test_no_stop_strings_hold_nothing_back() -> None:
    assert StopMatcher([]).feed("text") == "text"


def test_overlap_finds_the_longest_beginning() -> None:
    assert overlap("xabab", "ababc") == 4
    assert overlap("xab", "ab") == 0  # a whole stop string is a match, no overlap
    assert overlap("", "ab") == 0


@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1))
def test_any_split_of_the_text_gives_the_same_answer(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    shown, matched = run(pieces, stops)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if matched is None:
        assert shown == text
    else:
        assert text[len(shown) :].startswith(matched)
