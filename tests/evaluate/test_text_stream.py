"""Pieces of a reply: together they are its text, whatever tokens cut through."""

import random

import pytest
from vinnow.evaluate.generator import first_stop
from vinnow.evaluate.text_stream import TextStream


def decode(tokens):
    """Tokens are single bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


def pieces_of(text, stop=()):
    stream = TextStream(decode, stop)
    return [stream.push(b) for b in text.encode()] + [stream.close()]


def test_a_character_of_four_tokens_comes_whole():
    assert [p for p in pieces_of("a🐈é") if p] == ["a", "🐈", "é"]


@pytest.mark.parametrize(
    ("text", "stop", "wanted"),
    [
        ("  one two \n", (), "one two"),
        ("one STOP two", ("STOP",), "one"),
        ("one STO two", ("STOP",), "one STO two"),
        ("one STO", ("STOP",), "one STO"),
        ("aab", ("ab",), "a"),
        ("x\n\n###y", ("###",), "x"),
        ("", ("a",), ""),
        ("   ", (), ""),
        ("stop", ("stop",), ""),
    ],
)
def test_stops_and_outer_space_are_not_shown(text, stop, wanted):
    pieces = pieces_of(text, stop)
    assert "".join(pieces) == wanted


def test_pieces_together_are_the_text_that_a_reply_has():
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choice("ab \n🐈é") for _ in range(rng.randrange(12)))
        stop = tuple("".join(rng.choice("ab \n") for _ in range(rng.randrange(1, 4))) for _ in range(rng.randrange(3)))
        # a reply ends with the token that completes a stop text
        text = next((text[:n] for n in range(len(text) + 1) if first_stop(text[:n], stop) is not None), text)
        cut = first_stop(text, stop)
        assert "".join(pieces_of(text, stop)) == text[:cut].strip(), (text, stop)


def test_half_a_character_at_the_end_is_shown_as_what_it_is():
    stream = TextStream(decode)
    assert [stream.push(b) for b in "a🐈".encode()[:3]] == ["a", "", ""]
    assert stream.close() == "\N{REPLACEMENT CHARACTER}"
