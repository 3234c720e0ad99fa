"""Texts that are tokenised once and kept: the same tokens as anew, and no more of them than there is room for."""

import pytest
from vinnow.pool import stretches
from vinnow.pool.stretches import Stretches

TEXTS = ["USER: What is a cat", " ASSISTANT: cat", "", "cat", " cat", "x" * 30]
FLAVOURS = ["metaspace-always", "metaspace-first", "normalizer"]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("behind", [False, True])
def test_a_kept_text_has_the_tokens_of_a_new_one(make_processor, flavour, behind):
    tokenizer = make_processor(flavour).tokenizer
    kept = Stretches(tokenizer)
    kept.tokens(TEXTS[:3], [not behind] * 3)  # behind a special token or not makes two of one text
    for _ in range(2):
        assert kept.tokens(TEXTS, [behind] * len(TEXTS)) == [
            Stretches(tokenizer).tokens([text], [behind])[0] for text in TEXTS
        ]


def test_room_is_for_so_many_and_short_ones(make_processor, monkeypatch):
    monkeypatch.setattr(stretches, "_KEPT", 3)
    monkeypatch.setattr(stretches, "_LONGEST", 20)
    kept = Stretches(make_processor("normalizer").tokenizer)
    first = kept.tokens(TEXTS, [False] * len(TEXTS))
    assert kept.tokens(TEXTS, [False] * len(TEXTS)) == first
    assert [text for text, _ in kept._kept] == TEXTS[:3]
