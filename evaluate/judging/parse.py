"""Two scores out of a judge's text: strictly, or as the released script reads them."""

import math
import re

Scores = tuple[float, float]
LEAST, MOST = 1.0, 10.0
_NUMBER = r"([0-9]{1,2}(?:\.[0-9]+)?)"
_PAIR = re.compile(rf"{_NUMBER}(?:[ \t]*,[ \t]*|[ \t]+){_NUMBER}")


def scores_of(text: str) -> Scores | None:
    """Return the scores of the first and the second assistant: two numbers from 1 to 10, alone on the first line.

    A comma or white space parts them; None for anything else.
    """
    lines = text.strip().splitlines()
    match = _PAIR.fullmatch(lines[0].strip()) if lines else None
    if match is None:
        return None
    first, second = float(match[1]), float(match[2])
    return (first, second) if min(first, second) >= LEAST and max(first, second) <= MOST else None


def official_scores(text: str) -> Scores | None:
    """Return the scores as `eval_gpt_review_bench.py` reads them; None where it has −1 and −1.

    Commas become spaces and the first line is cut at each space, so "8, 9" is none; no range is checked. Not so: what
    Python calls a number without being one (nan, inf) is none here.
    """
    parts = text.split("\n")[0].replace(",", " ").split(" ")
    if len(parts) != 2:
        return None
    try:
        first, second = map(float, parts)
    except ValueError:
        return None
    return (first, second) if math.isfinite(first) and math.isfinite(second) else None
