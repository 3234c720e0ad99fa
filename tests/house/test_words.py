"""Names say what they hold. Words that fit any value are no names, and an array has one alias."""

import ast
from pathlib import Path

import pytest
from house import rules
from house.rules import Source, parse

ROOT = Path(__file__).parents[2]
# rooms (and their tests) without such names; add one when it is clean
CLEAN = ("actors", "evaluate", "models", "pipelines", "pool", "select", "store", "train")
# the same for what stands beside the rooms: folders, and files by name
CLEAN_BESIDE = ("benchmarks/", "examples/", "tests/house/", "tests/faults/", "tests/ops/", "tests/*.py")
# rooms of which every array has the one alias, clean of empty names or not
WITH_ARRAYS = ("actors/", "evaluate/", "models/", "pipelines/", "pool/", "select/", "store/", "train/")
EMPTY = {"found", "made", "given", "at"}
ARRAY = "store/arrays.py"


def named(node: ast.AST) -> str | None:
    """Return the name that a node gives to a value: a variable, parameter, field, attribute, function, import, capture."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return name
        case ast.arg(arg=name) | ast.alias(asname=name) | ast.ExceptHandler(name=name):
            return name
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
            return name
    return None


def empty_words(source: Source) -> list[str]:
    """Names that say nothing of what they hold."""
    return [
        f"{source.path}:{getattr(node, 'lineno', 0)}: {name!r} says nothing of what it holds: rows, shards, matches, …?"
        for node in ast.walk(source.tree)
        if (name := named(node)) in EMPTY
    ]


def array_aliases(source: Source) -> list[str]:
    """Aliases of numpy's array type, and the type spelled out, beside the one in `store/arrays.py`."""
    if source.path == ARRAY:
        return []
    spelled = [
        n for n in ast.walk(source.tree) if isinstance(n, ast.Subscript) and ast.unparse(n.value).endswith("ndarray")
    ]
    aliases = [
        n for n in source.tree.body if isinstance(n, ast.Assign) and ast.unparse(n.value).split(".")[-1] == "ndarray"
    ]
    return [f"{source.path}:{n.lineno}: take Array of {ARRAY}" for n in [*spelled, *aliases]]


def clean_sources() -> list[Source]:
    """The files of the clean rooms, of their tests and of what stands beside them."""
    places = (*CLEAN_BESIDE, *(f"{folder}{room}/" for folder in ("", "tests/") for room in CLEAN))
    paths = [p for p in rules.python_files(ROOT) if any(_lies_in(p, place) for place in places)]
    return [parse(p, (ROOT / p).read_text()) for p in paths]


def _lies_in(path: str, place: str) -> bool:
    """Say whether a file lies under a folder `x/`, or right in the folder of `x/*.py`."""
    folder = place.removesuffix("*.py")
    return path.startswith(folder) and (folder == place or "/" not in path.removeprefix(folder))


def test_an_array_has_one_alias_in_every_room():
    sources = [parse(p, (ROOT / p).read_text()) for p in rules.python_files(ROOT) if p.startswith(tuple(WITH_ARRAYS))]
    assert {s.path.split("/")[0] + "/" for s in sources} == set(WITH_ARRAYS)
    assert [problem for source in sources for problem in array_aliases(source)] == []


@pytest.mark.parametrize("rule", [empty_words, array_aliases], ids=lambda r: r.__name__)
def test_clean_rooms_stay_clean(rule):
    sources = clean_sources()
    assert {s.path.split("/")[0] for s in sources} == {"tests", "benchmarks", "examples", *CLEAN}
    assert [s.path for s in sources if s.path == "tests/conftest.py"]
    assert [problem for source in sources for problem in rule(source)] == []


@pytest.mark.parametrize(
    "text",
    [
        "found = 1",
        "found: int = 1",
        "def f(given): ...",
        "def f(*, at=0): ...",
        "lambda made: made",
        "def made(): ...",
        "class A:\n    at: int",
        "def f(self): self.at = 0",
        "for found in x: ...",
        "for i, (at, b) in x: ...",
        "[found for found in x]",
        "with x as found: ...",
        "if (found := x): ...",
        "try: ...\nexcept E as found: ...",
        "import x as found",
        "match x:\n    case [found]: ...",
    ],
)
def test_an_empty_word_is_seen(text):
    assert len(empty_words(parse("pool/x.py", text))) == 1


@pytest.mark.parametrize(
    "text", ["np.add.at(x, 1)", "rows_found = 1", "x = {'at': 1}", "f(at=1)", "# found\nx = 'given'"]
)
def test_what_is_no_name_of_ours_passes(text):
    assert empty_words(parse("pool/x.py", text)) == []


def test_a_second_alias_is_seen():
    for text in ("Array = np.ndarray[Any, Any]", "Array = np.ndarray", "def f(x: np.ndarray[Any, Any]): ..."):
        assert len(array_aliases(parse("pool/x.py", text))) == 1
        assert array_aliases(parse(ARRAY, text)) == []
    assert array_aliases(parse("pool/x.py", "isinstance(x, np.ndarray)\nx: Array = np.zeros(1)")) == []
