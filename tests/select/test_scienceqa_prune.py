"""ScienceQA's pruning against a naive loop, its three principles as properties, and fields that a pool lacks."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from vinnow.pipelines.runs.picking import make_view
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.select import registry
from vinnow.store.errors import InputError

NEEDS = registry.make("scienceqa_prune").needs


def pick(view, budget, **config):
    selector = registry.make("scienceqa_prune", config)
    return selector.pick(selector.score(view, 0), budget, 0)["sample_id"].to_pylist()


def naive(world, budget, cover=("skill", "topic", "subject"), images=True, weights=(1, 1, 1)):
    """Sort, walk, repeat: everything by Python lists."""
    columns = {k: v.tolist() for k, v in world.columns.items()}
    rows = range(world.n)
    measured = [
        [int(g[5:]) for g in columns["extra:grade"]],
        [len(c) for c in columns["extra:choices"]],
        [len(s) for s in columns["extra:solution"]],
    ]
    hard = dict.fromkeys(rows, 0.0)
    for weight, values in zip(weights, measured):
        for i in rows:
            below = sum(v < values[i] for v in values)
            hard[i] += weight * (below + values.count(values[i]) / 2) / world.n
    left = sorted(rows, key=lambda i: (-round(hard[i], 9), int(world.ids[i])))
    taken = []
    for field in cover:
        for i in list(left):
            if columns[f"extra:{field}"][i] not in {columns[f"extra:{field}"][j] for j in taken}:
                taken.append(i)
                left.remove(i)
    if images:
        left.sort(key=lambda i: not columns["has_image"][i])
    return [int(world.ids[i]) for i in (taken + left)[:budget]]


@pytest.mark.parametrize("budget", [1, 6, 30, 90])
@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({}, {}),
        ({"cover": ["subject"], "images_first": False}, {"cover": ("subject",), "images": False}),
        ({"cover": [], "grade_weight": 0, "solution_weight": 3}, {"cover": (), "weights": (0, 1, 3)}),
    ],
)
def test_equals_a_naive_loop(world, written, budget, config, options):
    assert pick(world.view(written, NEEDS), budget, **config) == naive(world, budget, **options)


def test_its_principles_hold_on_many_pools(small, written):
    for seed in range(12):
        world = type(small)(120, seed)
        view = world.view(written, NEEDS)
        image, values = dict(zip(world.ids.tolist(), world.columns["has_image"])), {}
        for field in ("skill", "topic", "subject"):
            values[field] = dict(zip(world.ids.tolist(), world.columns[f"extra:{field}"]))
        kinds = sum(len(set(v.values())) for v in values.values())
        for budget in (kinds, 50, 119):
            chosen = pick(view, budget)
            assert len(set(chosen)) == budget
            for field in values.values():
                assert {field[i] for i in chosen} == set(field.values())
            # text only where it covers something, or when no picture is left
            without = sum(not image[i] for i in chosen)
            assert without <= kinds or sum(image[i] for i in chosen) == sum(image.values())
        assert pick(view, 30) == pick(view, 60)[:30]
        # the three weights each matter
        orders = [pick(view, 60, **{k: 0}) for k in ("grade_weight", "choices_weight", "solution_weight")]
        assert len({tuple(o) for o in [*orders, pick(view, 60)]}) == 4


def test_a_pool_without_the_fields_is_refused_by_name(tmp_path):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    fields = {"subject": "s", "topic": "t", "skill": "k", "grade": "grade3", "choices": ["a", "b"], "solution": ""}
    records = [{"conversations": turns} | fields | {"skill": f"k{i}"} for i in range(3)]

    def view(name):
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
        ingest(IngestConfig(source=str(tmp_path / f"{name}.json")), str(tmp_path / name))
        return make_view(str(tmp_path / name), None, None, NEEDS)

    whole = view("whole")
    assert len(pick(whole, 3)) == 3
    assert sorted(whole.column("extra:skill")) == ["k0", "k1", "k2"]
    records[1]["grade"] = "third"
    with pytest.raises(InputError, match=r"'grade' of sample_id \d+ is 'third'"):
        pick(view("odd"), 2)
    del records[1]["grade"]
    lacking = view("lacking")
    with pytest.raises(InputError, match="'grade', which 1 of 3 rows do not have"):
        pick(lacking, 2)
    assert len(pick(lacking, 2, grade_weight=0)) == 2


def test_fields_change_what_scores_depend_on(world, written):
    view = world.view(written, NEEDS)
    facts = view.digest_facts()
    view.columns["extra:choices"] = np.roll(view.columns["extra:choices"], 1)
    assert view.digest_facts() != facts


def test_generated_records_go_through_the_pool(tmp_path):
    """The official layout at small size: every skill at least once, as long as there are rows enough."""
    file = Path(__file__).parents[2] / "benchmarks/make_scienceqa.py"
    spec = importlib.util.spec_from_file_location("make_scienceqa", file)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    source = maker.write(str(tmp_path / "sqa"), rows=600)
    assert dict(maker.problems(600)) == json.loads((tmp_path / "sqa/problems.json").read_text())
    ingest(IngestConfig(source=source, split="train"), str(tmp_path / "pool"))
    view = make_view(str(tmp_path / "pool"), None, None, NEEDS)
    assert len(view.ids) == 600
    values = {f: dict(zip(view.ids.tolist(), view.column(f"extra:{f}"))) for f in ("skill", "topic", "subject")}
    assert [len(set(v.values())) for v in values.values()] == [379, 26, 3]
    assert [len({v[i] for i in pick(view, 400)}) for v in values.values()] == [379, 26, 3]
    image = dict(zip(view.ids.tolist(), view.column("has_image")))
    # all that is left over after covering is pictures, and they are more in number
    assert all(image[i] for i in pick(view, 400)[379:])
    assert 0.4 < np.mean(list(image.values())) < 0.56
