"""What works on which family, by the tests that pass: `--record-works` writes them down, docs/families.md shows them.

A test says it by its mark, `works("what")`, and by its parameter `name`, the family. A refusal that a test holds says so by
`refuses("what: why")`. A test that is skipped leaves what an earlier run said of it.
"""

import ast
import json
from pathlib import Path

from vinnow.models import registry

TESTS = Path(__file__).parent
TABLE = TESTS / "works.json"
MARKS = ("works", "refuses")


def read_table(table=TABLE):
    """Return {"works": {what: [family]}, "refuses": [what and why]}."""
    return json.loads(table.read_text()) if table.exists() else {"works": {}, "refuses": []}


def marked(mark):
    """List what the tests' sources say by a mark, in the order of the files' names and of their lines."""
    said = []
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                calls = [d for d in node.decorator_list if isinstance(d, ast.Call)]
                said += [
                    (file, d.lineno, ast.literal_eval(d.args[0]))
                    for d in calls
                    if ast.unparse(d.func) == f"pytest.mark.{mark}"
                ]
    return list(dict.fromkeys(what for _, _, what in sorted(said)))


def tell(items):
    """Let tests' reports say what their marks say."""
    for item in items:
        family = getattr(item, "callspec", None) and item.callspec.params.get("name")
        for mark in MARKS:
            for marker in item.iter_markers(mark):
                item.user_properties.append((mark, [marker.args[0], family]))


class Recorder:
    """Gathers what passed and what failed, and writes it into the table at the end."""

    def __init__(self, table=TABLE):
        self.table, self.passed, self.failed = table, set(), set()

    def pytest_runtest_logreport(self, report):
        for mark, (what, family) in [p for p in report.user_properties if p[0] in MARKS]:
            key = (mark, what, family)
            if report.failed:
                self.failed.add(key)
            elif report.when == "call" and report.passed:
                self.passed.add(key)

    def pytest_sessionfinish(self):
        before, ran = read_table(self.table), self.passed | self.failed
        sound = self.passed - self.failed
        works = {}
        for what in marked("works"):
            kept = set(before["works"].get(what, ())) & set(registry.families())
            kept -= {family for mark, w, family in ran if (mark, w) == ("works", what)}
            works[what] = sorted(kept | {family for mark, w, family in sound if (mark, w) == ("works", what)})
        again = {what for mark, what, _ in ran if mark == "refuses"}
        held = {what for mark, what, _ in sound if mark == "refuses"}
        held -= {what for mark, what, _ in self.failed if mark == "refuses"}
        refuses = [w for w in marked("refuses") if w in held or (w in before["refuses"] and w not in again)]
        self.table.write_text(json.dumps({"works": works, "refuses": refuses}, indent=1) + "\n")
