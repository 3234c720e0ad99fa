"""A new selector is one file in a folder; clashes, typos and half-made ones are named."""

import os
import pickle
import subprocess
import sys

import pytest
from vinnow.select import registry
from vinnow.select.run import select
from vinnow.store.errors import InputError
from vinnow.store.tables import PICKS, read_rows

# ten lines of code: rows of middling loss first
MIDDLE = """
from vinnow.select import pickers
from vinnow.select.needs import Needs
from vinnow.select.rows import columns_of, picks_table, scores_table
from vinnow.store.config import Config as Base

class Middle:
    name, needs, seeded = {name!r}, Needs(features=("loss",)), False
    class Config(Base):
        at: float = 1.0
    def __init__(self, config): self.config = config
    def score(self, view, seed):
        loss = view.load("loss", 30)[:, 0]
        return scores_table(view.ids, "", 0 * view.ids, -abs(loss - self.config.at))
    def pick(self, scores, budget, seed):
        ids, group, score = columns_of(scores)
        take = pickers.top_k(ids, score, budget)
        return picks_table(ids[take], group[take], score[take], self.name, budget, seed)

SELECTOR = Middle
"""
# one `score` on the base
HARD = """
from vinnow.select.needs import Needs
from vinnow.select.ranked import Ranked
from vinnow.select.rows import scores_table

class Hard(Ranked):
    name, needs = "hard", Needs(features=("loss",))
    def score(self, view, seed):
        return scores_table(view.ids, "", 0 * view.ids, view.load("loss", 30)[:, 0])

SELECTOR = Hard
"""


@pytest.fixture
def methods(tmp_path, monkeypatch):
    """A folder for files of one's own, listed in the environment."""
    folder = tmp_path / "methods"
    folder.mkdir()
    monkeypatch.setenv("VINNOW_METHODS", str(folder))
    return folder


def test_a_new_selector_is_one_file(methods, world, written, tmp_path):
    (methods / "middle.py").write_text(MIDDLE.format(name="middle"))
    assert "middle" in registry.names()
    assert {"random", "less"} <= set(registry.names())
    # it does not say what its scores mean
    assert registry.score_means(registry.make("middle")) == "order"
    view = world.view(written, registry.make("middle").needs)
    picks = read_rows(select(view, "middle", {"at": 2.5}, [9], 0, str(tmp_path))["9"], PICKS)
    loss = dict(zip(world.ids.tolist(), world.pool["loss"][30][:, 0].tolist(), strict=True))
    assert picks["sample_id"].to_pylist() == sorted(loss, key=lambda i: (abs(loss[i] - 2.5), i))[:9]
    with pytest.raises(InputError, match=r"selector middle\.att.*did you mean 'at'"):
        registry.make("middle", {"att": 1})
    selector = registry.make("middle", {"at": 3})
    # a Ray worker receives classes by pickle
    assert pickle.loads(pickle.dumps(type(selector))) is type(selector)  # noqa: S301


def test_a_simple_selector_is_one_score(methods, world, written, tmp_path):
    (methods / "hard.py").write_text(HARD)
    selector = registry.make("hard")
    assert (registry.score_means(selector), selector.seeded) == ("worth", False)
    picks = read_rows(select(world.view(written, selector.needs), "hard", {}, [9], 0, str(tmp_path))["9"], PICKS)
    loss = dict(zip(world.ids.tolist(), world.pool["loss"][30][:, 0].tolist(), strict=True))
    assert picks["sample_id"].to_pylist() == sorted(loss, key=lambda i: (-loss[i], i))[:9]
    with pytest.raises(InputError, match=r"selector hard\.at"):
        registry.make("hard", {"at": 1})


def test_the_digest_covers_the_files_of_the_bases(monkeypatch):
    from vinnow.select import influence

    exact, plain = registry.make("less_exact"), registry.make("random")
    before = registry.source_digest(exact), registry.source_digest(plain)
    assert before[0] != registry.source_digest(registry.make("less"))
    # as if the shared file had other bytes
    monkeypatch.setattr(influence, "__file__", registry.__file__)
    assert registry.source_digest(exact) != before[0]
    assert registry.source_digest(plain) == before[1]


def test_two_equal_names_raise_and_name_both_files(methods):
    (methods / "mine.py").write_text(MIDDLE.format(name="random"))
    with pytest.raises(InputError, match=r"two selectors are called 'random'.*random_\.py and .*mine\.py"):
        registry.names()


def test_two_folders_may_use_one_file_name(methods, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (methods / "mine.py").write_text(MIDDLE.format(name="one"))
    (other / "mine.py").write_text(MIDDLE.format(name="two"))
    monkeypatch.setenv("VINNOW_METHODS", f"{methods}{os.pathsep}{other}")
    assert {"one", "two"} <= set(registry.names())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "SELECTOR = ItsClass"),
        ("class Half:\n    name = 'half'\nSELECTOR = Half", "Half lacks needs, seeded, Config, score, pick"),
        (HARD.replace("def score", "def scored"), "Hard lacks score "),
        (MIDDLE.format(name="a/b"), "'a/b'"),
        (MIDDLE.format(name="odd").replace("    class", "    score_means = 'luck'\n    class"), "worth, order, chance"),
    ],
)
def test_a_file_that_is_no_selector_is_named(methods, code, message):
    (methods / "broken.py").write_text(code)
    with pytest.raises(InputError, match=message) as caught:
        registry.names()
    assert "broken.py" in str(caught.value)


def test_helpers_begin_with_an_underscore(methods):
    (methods / "_helper.py").write_text("x = 1")
    assert "random" in registry.names()


def test_a_folder_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("VINNOW_METHODS", "/no/such/folder")
    with pytest.raises(InputError, match="/no/such/folder"):
        registry.names()


def test_typos_name_the_neighbour():
    with pytest.raises(InputError, match="unknown selector 'lass'; did you mean 'less'"):
        registry.make("lass")
    with pytest.raises(InputError, match=r"selector xmas\.text_polcy.*did you mean 'text_policy'"):
        registry.make("xmas", {"text_polcy": "all"})


def test_names_are_found_from_any_folder_without_torch_or_ray():
    code = "import sys; from vinnow.select import registry, run; "
    code += "print(registry.names(), {'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == f"{registry.names()} set()"
