"""No GPU test can be forgotten: what is marked `gpu` stands in tests/gpu_tests.txt, and back."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PARAM = "pytest.param('gpu', marks=pytest.mark.gpu)"


def marks_gpu(node: ast.AST, names: frozenset[str] = frozenset()) -> bool:
    """Whether `pytest.mark.gpu`, or one of `names` that carries it, stands anywhere in an expression."""
    return any(
        (isinstance(n, ast.Attribute) and n.attr == "gpu" and ast.unparse(n.value).endswith("mark"))
        or (isinstance(n, ast.Name) and n.id in names)
        for n in ast.walk(node)
    )


def gpu_functions(text: str) -> set[str]:
    """Names of a test module's functions with the mark: by decorator, parameter, fixture, class or module."""
    tree = ast.parse(text)
    assigned = [
        (t.id, n.value) for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
    ]
    constants = frozenset(name for name, value in assigned if marks_gpu(value))
    everything = "pytestmark" in constants
    functions: list[tuple[ast.FunctionDef, bool]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions.append((node, everything))
        elif isinstance(node, ast.ClassDef):
            whole = everything or any(marks_gpu(d, constants) for d in node.decorator_list)
            functions += [(f, whole) for f in node.body if isinstance(f, ast.FunctionDef)]
    marked = {f.name for f, whole in functions if whole or any(marks_gpu(d, constants) for d in f.decorator_list)}
    for f, _ in functions:
        # a test that asks for a marked fixture has the mark in some of its variants
        if {a.arg for a in f.args.args} & marked:
            marked.add(f.name)
    return {name for name in marked if name.startswith("test_")}


def marked_tests() -> set[str]:
    return {
        f"{path.relative_to(TESTS.parent).as_posix()}::{name}"
        for path in TESTS.rglob("test_*.py")
        for name in gpu_functions(path.read_text(encoding="utf-8"))
    }


def listed_tests() -> list[str]:
    lines = (TESTS / "gpu_tests.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_every_marked_test_is_listed():
    assert marked_tests() - set(listed_tests()) == set(), "add these to tests/gpu_tests.txt"


def test_every_listed_test_is_marked():
    assert set(listed_tests()) - marked_tests() == set(), "these are gone or lost their mark"


def test_the_list_is_sorted_and_names_each_once():
    assert listed_tests() == sorted(set(listed_tests()))


def test_what_pytest_collected_is_listed(request):
    """The syntax may hide a mark (added by a hook, say); pytest's own items do not."""
    collected = {
        f"{item.path.relative_to(TESTS.parent).as_posix()}::{item.originalname}"
        for item in request.session.items
        if item.get_closest_marker("gpu")
    }
    assert collected <= set(listed_tests())


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.mark.gpu\ndef test_a(): ...",
        "@mark.gpu\ndef test_a(): ...",
        f"@pytest.mark.parametrize('x', ['cpu', {PARAM}])\ndef test_a(x): ...",
        f"WHERE = [{PARAM}]\n@pytest.mark.parametrize('x', WHERE)\ndef test_a(x): ...",
        "pytestmark = [pytest.mark.slow, pytest.mark.gpu]\ndef test_a(): ...",
        "@pytest.mark.gpu\nclass TestAll:\n    def test_a(self): ...",
        f"@pytest.fixture(params=[{PARAM}])\ndef place(): ...\ndef test_a(place): ...",
    ],
)
def test_a_mark_is_seen(text):
    assert gpu_functions("import pytest\n" + text) == {"test_a"}


def test_other_marks_are_not_it():
    text = "config.gpu = 1\n@pytest.mark.slow\ndef test_a(gpu): ...\n"
    text += "@pytest.mark.parametrize('gpu', [1])\ndef test_b(gpu): ..."
    assert gpu_functions(text) == set()
