"""The benchmark contract suite catches a newcomer's mistakes: each one is planted, alone, and the law that must fail does.

`fine` is sound: every law passes on it, so that what fails below fails for the mistake alone.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BENCHMARK = """
import random
from vinnow.evaluate.benchmark import Benchmark, reference

class Planted(Benchmark):
    name = "planted_{name}"
    def check(self, record):
        pass
    def score(self, answer, record):
        score = float(answer.strip() == reference(record).strip())
        {mistake}
        return score
BENCHMARK = Planted
"""
BENCHMARKS = {
    "fine": ({}, None),
    "outside": ({"mistake": "score *= 100"}, "any_text_is_an_answer"),
    "nan": ({"mistake": "score = score if answer else float('nan')"}, "any_text_is_an_answer"),
    "empty": ({"mistake": "answer.split()[0]"}, "any_text_is_an_answer"),
    "unseeded": ({"mistake": "score = score or random.random()"}, "any_text_is_an_answer"),
}
ROOMS = {
    "benchmark": ("tests/evaluate/test_benchmark_contract.py", "VINNOW_BENCHMARKS", BENCHMARK, BENCHMARKS, ""),
}
BLANK = {"mistake": "pass", "settings": "pass", "method": "pass", "dim": "1"}


@pytest.mark.parametrize("room", ROOMS)
def test_each_planted_mistake_fails_its_law_and_a_sound_file_none(room, tmp_path):
    suite, variable, text, plants, laws = ROOMS[room]
    for name, (changes, _) in plants.items():
        (tmp_path / f"planted_{name}.py").write_text(text.format(name=name, **(BLANK | changes)))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rf", "--tb=no", "-k", f"planted{laws}"]
    places = os.environ | {variable: str(tmp_path), "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([*command, suite], cwd=ROOT, env=places, capture_output=True, text=True, timeout=600)
    failed = re.findall(r"^FAILED .*::test_(\w+)\[.*?planted_([a-z]+)", done.stdout, flags=re.M)
    by_name = {name: {law for law, whose in failed if whose == name} for name in plants}
    assert not by_name["fine"], done.stdout
    for name, (_, law) in plants.items():
        if law:
            assert any(f.startswith(law) for f in by_name[name]), (name, law, by_name[name], done.stdout[-3000:])
