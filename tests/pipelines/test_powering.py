"""`vinnow power` as the README shows it."""

import json
import math
import re
import shlex
from pathlib import Path
from statistics import NormalDist

from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app

README = Path(__file__).parents[2] / "README.md"


def shown(*more):
    (line,) = re.findall(r"^vinnow (power .*)$", README.read_text(encoding="utf-8"), flags=re.M)
    done = CliRunner().invoke(app, [*shlex.split(line), *more])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_readmes_line_says_how_many_pictures_a_point_takes():
    """By hand: Connor's formula with a design effect of 1 + 17 · 0.1."""
    z = [NormalDist().inv_cdf(q) for q in (0.975, 0.8)]
    variance = (0.12 - 0.01**2) * 2.7
    pictures = next(
        n
        for n in range(1, 9999)
        if z[0] * math.sqrt(variance / (18 * n) + 0.01**2 / n) + z[1] * math.sqrt(variance / (18 * n)) <= 0.01
    )
    assert f"{pictures:,}" in shown()
    assert f"{18 * pictures:,}" in shown()
    told = json.dumps(json.loads(shown("--json")))
    assert str(pictures) in told
