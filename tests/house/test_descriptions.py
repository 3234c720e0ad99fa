"""Every field of every config says what it is: docs/config.md and `vinnow config` are made of that."""

import ast
from pathlib import Path

from house.rules import ROOMS

ROOT = Path(__file__).parents[2]


def configs(trees):
    """Return the classes that are configs, by their bases' names: also those inside a class."""
    every = [c for tree in trees for c in ast.walk(tree) if isinstance(c, ast.ClassDef)]
    known, before = {"Config"}, 0
    while before != len(known):
        before = len(known)
        known |= {c.name for c in every if {ast.unparse(b).split(".")[-1] for b in c.bases} & known}
    return [c for c in every if {ast.unparse(b).split(".")[-1] for b in c.bases} & known]


def undescribed(config):
    fields = [n for n in config.body if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.unparse(n.annotation)]
    fields = [n for n in fields if isinstance(n.target, ast.Name) and not n.target.id.startswith("_")]
    return [n.target.id for n in fields if "description=" not in ast.unparse(n.value or ast.Constant(None))]


def test_every_field_has_a_description():
    files = [f for room in (*ROOMS, "examples") for f in sorted((ROOT / room).rglob("*.py"))]
    trees = [ast.parse(f.read_text(encoding="utf-8")) for f in files]
    classes = configs(trees)
    assert len(classes) > 30
    missing = [f"{c.name}.{field}" for c in classes for field in undescribed(c)]
    assert not missing, f"give each a Field(description=…): {missing}"


def test_a_field_without_words_is_seen():
    (config,) = configs([ast.parse("class A(Config):\n    a: int = 1\n    b: int = Field(1, description='b')\n")])
    assert undescribed(config) == ["a"]
