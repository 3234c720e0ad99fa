"""`vinnow power` as the README shows it."""

import json
import math
import re
import shlex
from pathlib import Path
from statistics import NormalDist

import pyarrow.parquet as pq
import pytest
from evals import evals
from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app
from vinnow.store.errors import InputError

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


@pytest.fixture
def evaluations(tmp_path):
    """Two that differ on half of the questions, each about a picture of its own."""
    for name, scores in (("a", [1, 1, 0, 0] * 10), ("b", [1, 0, 0, 1] * 10)):
        pq.write_table(evals(scores), tmp_path / f"{name}.parquet")
    return [str(tmp_path / f"{name}.parquet") for name in "ab"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--disagree", "20"], "--disagree 20 is at odds with the two evaluations, which differ on 50 %"),
        (["--correlation", "0.5"], "give --per-picture, too"),
    ],
)
def test_what_would_override_or_do_nothing_is_refused(evaluations, options, said):
    done = CliRunner().invoke(app, ["power", *evaluations, *options])
    assert isinstance(done.exception, InputError), done.output
    assert said in str(done.exception)
    more = ["--correlation", "0.5", "--per-picture", "3", "--json"]
    done = CliRunner().invoke(app, ["power", *evaluations, *more])
    assert json.loads(done.stdout)["assumed"]["design_effect"] == 2
    told = CliRunner().invoke(app, ["power", *evaluations, *more[:-1]]).stdout
    assert "in place of what the evaluations show: per picture (1), correlation (0)" in " ".join(told.split()), told


def test_a_correlation_alone_is_refused_without_evaluations():
    done = CliRunner().invoke(app, ["power", "--disagree", "20", "--correlation", "0.5"])
    assert "give --per-picture, too" in str(done.exception)
