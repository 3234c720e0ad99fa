"""The table of rooms and the house limits, held on the real tree; each rule shown to bite on a small one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from house import rules, tree_rules
from house.rules import ROOMS, parse

ROOT = Path(__file__).parents[2]
PYPROJECT = '[tool.setuptools]\npackages = ["vinnow", "vinnow.store", "vinnow.pool"]\n'


@pytest.fixture(scope="module")
def package() -> list[rules.Source]:
    return rules.sources(ROOT)


@pytest.mark.parametrize("rule", rules.FILE_RULES, ids=lambda r: r.__name__)
def test_the_package_keeps(rule, package):
    assert [problem for source in package for problem in rule(source)] == []


@pytest.mark.parametrize("rule", tree_rules.TREE_RULES, ids=lambda r: r.__name__)
def test_the_tree_keeps(rule):
    assert rule(ROOT) == []


def test_tests_and_benchmarks_keep_to_the_sizes():
    paths = [p for p in rules.python_files(ROOT) if p.split("/")[0] in {"tests", "benchmarks"}]
    beside = [parse(p, (ROOT / p).read_text()) for p in paths]
    assert any(s.path == "tests/house/test_walls.py" for s in beside)
    limits = (rules.fat_files, rules.fat_functions)
    assert [problem for s in beside for limit in limits for problem in limit(s)] == []


def test_no_module_reaches_itself(package):
    assert rules.circles(package) == []


def test_a_ring_of_modules_is_seen_lazy_or_not():
    texts = {
        "pool/a.py": "from .b import x",
        "pool/b.py": "def f():\n    from .sub import c\n",
        "pool/sub/c.py": "if TYPE_CHECKING:\n    from ..a import y\n",
        "pool/d.py": "from .a import x\nfrom ..store import e",
        "store/e.py": "import json",
    }
    rings = rules.circles([parse(path, text) for path, text in texts.items()])
    assert rings == ["vinnow.pool.a, vinnow.pool.b, vinnow.pool.sub.c import each other"]
    assert rules.circles([parse(p, t) for p, t in texts.items() if p != "pool/sub/c.py"]) == []


def test_the_walk_sees_every_room(package):
    assert {s.room for s in package} == {"", *ROOMS}
    assert sum(1 for s in package for _ in rules.imports(s)) > 100


def test_no_allowance_is_stale(package):
    """An allowed file that no longer needs it would leave a hole for the next one."""
    by_path = {s.path: s for s in package}
    for path in rules.FAMILY_NAMED:
        assert rules.family_names(parse("pool/x.py", (ROOT / path).read_text())), path
    for path in rules.SWALLOWERS:
        free = parse("pool/x.py", (ROOT / path).read_text())
        assert rules.broad_excepts(free), path
    for path in rules.SCANNERS:
        assert any(True for _ in rules.imports(by_path[path])), path
        assert rules.hidden_imports(parse("pool/x.py", (ROOT / path).read_text())), path


def test_architecture_shows_this_table():
    """docs/architecture.md's table of rooms says what is enforced here."""
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", text, flags=re.M)
    shown = {room: (may.strip(), ray.strip()) for room, may, ray in rows}
    for name, room in ROOMS.items():
        may = ", ".join(r for r in ROOMS if r in room.may) or "nothing of ours"
        everything = room.may == ROOMS.keys() - {name}
        assert shown[name] == ("all" if everything else may, room.ray)
    assert shown.keys() == ROOMS.keys()


def test_ray_free_rooms_import_without_ray():
    """Loading all of store, select and models loads no Ray; store and select load no other room either."""
    by_room = {
        room: [s.path[:-3].replace("/", ".") for s in rules.sources(ROOT) if s.room == room]
        for room in ("store", "select", "models")
    }
    code = f"""
import importlib.util, sys
for room, names in {by_room!r}.items():
    for name in names:
        if name.endswith(".kernels") and not importlib.util.find_spec("triton"):
            continue  # GPU hosts alone have Triton
        importlib.import_module("vinnow." + name)
    assert "ray" not in sys.modules, room
    ours = {{m.split(".")[1] for m in sys.modules if m.startswith("vinnow.") and m.count(".")}}
    assert room == "models" or ours <= {{"store", "select"}}, (room, ours)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=False)
    assert done.returncode == 0, done.stderr


# ---- each rule bites -----------------------------------------------------------------------------

BITES = [
    (rules.illegal_arrows, "evaluate/x.py", "from ..actors.stream import run_features"),
    (rules.illegal_arrows, "select/x.py", "from ..models.load import load"),
    (rules.illegal_arrows, "select/methods/x.py", "from ...models.load import load"),
    (rules.illegal_arrows, "store/x.py", "from .. import pool"),
    (rules.illegal_arrows, "train/x.py", "def f():\n    from ..select.registry import make\n"),
    (rules.illegal_arrows, "evaluate/x.py", "import vinnow.train.run"),
    (rules.illegal_arrows, "models/x.py", "from vinnow.actors import stream"),
    (rules.illegal_arrows, "models/x.py", "if TYPE_CHECKING:\n    from ..train.run import train\n"),
    (rules.illegal_arrows, "models/x.py", "importlib.import_module('vinnow.train.run')"),
    (rules.illegal_arrows, "models/taps/x.py", "import_module('...train.run', __package__)"),
    (rules.illegal_arrows, "__init__.py", "from .store import tables"),
    (rules.illegal_arrows, "attic/x.py", "from ..store import tables"),
    (rules.absolute_imports, "train/x.py", "from vinnow.store.tables import POOL"),
    (rules.absolute_imports, "train/x.py", "import store.tables"),
    (rules.hidden_imports, "train/x.py", "import_module(name)"),
    (rules.hidden_imports, "train/x.py", "importlib.util.spec_from_file_location(name, file)"),
    (rules.ray_use, "store/x.py", "import ray"),
    (rules.ray_use, "select/x.py", "def f():\n    from ray import data\n"),
    (rules.ray_use, "models/x.py", "import_module('ray.train')"),
    (rules.ray_use, "pool/x.py", "from ray import train"),
    (rules.ray_use, "pool/x.py", "import ray\nray.get(x)"),
    (rules.fat_files, "pool/x.py", "x = 1\n" * 401),
    (rules.fat_functions, "pool/x.py", "def f():\n" + "    x = 1\n" * 60),
    (rules.fat_functions, "pool/x.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 60),
    (rules.wide_functions, "pool/x.py", "def f(a, b, c, d, e, f, g): ..."),
    (
        rules.wide_functions,
        "pool/x.py",
        "class A:\n    def f(self, a, b, *, d, **more): ...\n    def g(self, a, b, c, /, d, *e, f, g): ...",
    ),
    (rules.broad_excepts, "train/x.py", "try: f()\nexcept Exception: pass"),
    (rules.broad_excepts, "train/x.py", "try: f()\nexcept: pass"),
    (rules.broad_excepts, "train/x.py", "try: f()\nexcept (OSError, BaseException) as e: log(e)"),
    (rules.broad_excepts, "train/x.py", "try: f()\nexcept Exception:\n    def g():\n        raise\n"),
    (rules.unsafe_loading, "models/x.py", "import pickle"),
    (rules.unsafe_loading, "models/x.py", "from cloudpickle import loads"),
    (rules.unsafe_loading, "models/x.py", "torch.load(p)"),
    (rules.unsafe_loading, "models/x.py", "torch.load(p, weights_only=False)"),
    (rules.unsafe_loading, "models/x.py", "AutoModel.from_pretrained(p, trust_remote_code=True)"),
    (rules.unsafe_loading, "models/x.py", "AutoModel.from_pretrained(p, trust_remote_code=flag)"),
    (rules.unsafe_loading, "models/x.py", "np.load(p, allow_pickle=True)"),
    (rules.open_templates, "pool/x.py", "import jinja2"),
    (rules.family_names, "actors/x.py", "tower = base_of(m).model.vision_tower"),
    (rules.family_names, "actors/x.py", "batch['pixel_values'] = x"),
    (rules.family_names, "train/x.py", "model(pixel_values=x)"),
    (rules.family_names, "models/x.py", "regex = r'.*language_model\\.layers'"),
    (rules.family_names, "models/x.py", "from transformers import LlavaForConditionalGeneration"),
    (rules.family_names, "models/x.py", "x = config.image_token_id"),
    (rules.open_templates, "pool/x.py", "from jinja2 import Environment"),
    (rules.open_templates, "pool/x.py", "from jinja2.environment import Template"),
    (rules.open_templates, "models/x.py", "tokenizer.apply_chat_template(turns)"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BITES, ids=[f"{r.__name__}-{i}" for i, (r, *_) in enumerate(BITES)])
def test_a_rule_bites(rule, path, text):
    problems = rule(parse(path, text))
    assert len(problems) == 1, problems
    assert problems[0].startswith(path)


FINE = [
    (
        rules.illegal_arrows,
        "select/methods/x.py",
        "from ...store.tables import POOL\nfrom ..view import View",
    ),
    (rules.illegal_arrows, "pipelines/x.py", "from ..train.run import train\nfrom .flows import start"),
    (rules.illegal_arrows, "store/x.py", "import select\nimport models.zoo"),
    (rules.absolute_imports, "store/x.py", "import select\nfrom pyarrow import fs"),
    (rules.hidden_imports, "train/x.py", "import_module('json')"),
    (rules.ray_use, "pool/x.py", "import ray.data\nray.data.read_parquet(p)"),
    (rules.ray_use, "train/x.py", "from ray.train.torch import TorchTrainer"),
    (rules.fat_files, "pool/x.py", "x = 1\n" * 400),
    (rules.fat_functions, "pool/x.py", "def f():\n" + "    x = 1\n" * 59),
    (rules.wide_functions, "pool/x.py", "class A:\n    def f(self, a, b, c, d, e, f): ..."),
    (rules.illegal_arrows, "evaluate/x.py", "from ..actors.pool import Workers, run_shards"),
    (rules.wide_functions, "pipelines/cli/runs.py", "@app.command()\ndef f(a, b, c, d, e, f, g, h): ..."),
    (rules.broad_excepts, "train/x.py", "try: f()\nexcept Exception as e:\n    raise InputError('…') from e"),
    (rules.broad_excepts, "train/x.py", "try: f()\nexcept OSError: pass"),
    (rules.family_names, "models/family/x.py", "tower = model.vision_tower"),
    (rules.family_names, "train/x.py", "'''Not a word of vision_tower.'''\nparts = ['vision_tower', 'language_model']"),
    (rules.unsafe_loading, "models/x.py", "torch.load(p, weights_only=True)\njson.load(f)"),
    (rules.open_templates, "models/x.py", "from jinja2.sandbox import ImmutableSandboxedEnvironment"),
    (rules.open_templates, "pool/x.py", "from jinja2.loaders import FileSystemLoader"),
]


@pytest.mark.parametrize(("rule", "path", "text"), FINE, ids=[f"{r.__name__}-{i}" for i, (r, *_) in enumerate(FINE)])
def test_a_rule_lets_pass(rule, path, text):
    assert rule(parse(path, text)) == []


@pytest.fixture
def tree(tmp_path) -> Path:
    """A tree that keeps all laws, for a test to break."""
    for name in ("__init__.py", "__main__.py", "store/tables.py", "pool/reader.py", "tests/conftest.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


@pytest.mark.parametrize("rule", tree_rules.TREE_RULES, ids=lambda r: r.__name__)
def test_a_sound_tree_passes(rule, tree):
    assert rule(tree) == []


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (tree_rules.unknown_rooms, "attic/x.py"),
        (tree_rules.unknown_rooms, "setup.py"),
        (tree_rules.room_inits, "store/__init__.py"),
        (tree_rules.room_inits, "pool/formats/__init__.py"),
        (tree_rules.utils_anywhere, "pool/utils/strings.py"),
        (tree_rules.utils_anywhere, "tests/utils.py"),
        (tree_rules.package_list, "pool/formats/coco.py"),
        (tree_rules.package_list, "select/methods/x.py"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_a_tree_rule_bites(rule, path, tree):
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text("")
    problems = rule(tree)
    assert problems
    assert path.removesuffix(".py").split("/")[0] in problems[0]


def test_a_listed_package_must_be_there(tree):
    (tree / "pool/reader.py").unlink()
    assert tree_rules.package_list(tree) == ["pyproject.toml lists vinnow.pool, which holds nothing"]


def test_hidden_folders_and_leftovers_are_not_the_tree(tree):
    for left in (".venv/lib/utils.py", "pool/__pycache__/utils.py", "runs/demo/x.py", "build/lib/store/__init__.py"):
        (tree / left).parent.mkdir(parents=True)
        (tree / left).write_text("")
    assert [p for rule in tree_rules.TREE_RULES for p in rule(tree)] == []
