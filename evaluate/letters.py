"""Which option an answer names, as MMBench's own tool finds it before it asks a language model; and CircularEval.

Source: `tools/eval_mmbench.py` of OpenCompass (`can_infer`). What it cannot find there goes to ChatGPT; here it is wrong,
as in VLMEvalKit's exact matching.
"""

from collections.abc import Sequence

# whatever a question has; a fifth letter is one that is none of its options
_LETTERS = "ABCDE"
_AROUND = ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ").")
_AROUND += (":", ""), (":", ","), (":", "."), (":", ")"), (":", ").")


def named_option(answer: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that an answer names; None where it names none, or several.

    In order: exactly one of the letters A to E is a word of it ("B", "the answer is B"), but not where "A" is a word of
    more than three ("A dog is there"); exactly one is a word with the same mark around it ("B.", "(B)"); exactly one
    option's text, in any case of letters, stands in it.
    """
    words = answer.split()
    alone = [c for c in _LETTERS if c in words]
    if len(alone) == 1 and not ("A" in words and len(words) > 3):
        return alone[0]
    for before, behind in _AROUND:
        marked = [c for c in _LETTERS if before + c + behind in words]
        if len(marked) == 1:
            return marked[0]
    told = [c for c, option in zip(_LETTERS, options) if option.lower() in answer.lower()]
    return told[0] if len(told) == 1 else None


def shifts(options: Sequence[str], answer: str | None) -> list[tuple[list[str], str | None]]:
    """Return a question's rounds of CircularEval, as many as it has options: each once more shifted to the front.

    Each with the letter that is right then; None where it is hidden.
    """
    rounds, place = [], None if answer is None else _LETTERS.index(answer)
    for k in range(len(options)):
        right = None if place is None else _LETTERS[(place - k) % len(options)]
        rounds.append(([*options[k:], *options[:k]], right))
    return rounds
