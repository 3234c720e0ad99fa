"""Whatever a pool, a config or a path says stays text: each field that a template shows is given markup of its own."""

import html
import json
import re

import numpy as np
import pyarrow as pa
import pytest
from explored import explored_of
from PIL import Image
from reports import answers, figures, read, unbundled
from vinnow.evaluate.metrics import majority_baseline
from vinnow.pipelines.imbalance import Measured
from vinnow.pipelines.imbalance import page as imbalance_page
from vinnow.pipelines.report.build import document, page
from vinnow.pipelines.report.data import (
    About,
    Composition,
    Gallery,
    Picked,
    ReportData,
    Shown,
    Similarity,
    Stage,
    Trajectories,
    Trial,
)
from vinnow.select.diagnostics import Diagnosis
from vinnow.store.tables import REFUSED

# those that stand as they are in a text or an attribute
FIELDS = [
    "title",
    "fact-name",
    "fact",
    "selector",
    "budget",
    "variant",
    "task",
    "notes-of",
    "note",
    "diagnosed",
    "skill",
    "field-value",
    "choice",
    "cluster-source",
    "cluster-budget",
    "scored",
    "threshold",
    "gallery-of",
    "gallery-budget",
    "question",
    "answer",
    "card-task",
    "picture",
    "refused-pool",
    "reason",
    "detail",
    "stage",
    "command-name",
    "command",
    "answered",
    # of what is explored: a selector, a budget, a source and a task stand in tables
    "explored less",
    "explored 6 rows",
    "explored shapes",
    "explored is_color",
]


def hostile(field):
    return f"{field} \"'><script>a()<b onx=1>{{{{ 7*7 }}}}{{% raw %}}\u2028&lt;"


def tame(field):
    return f"{field} is a name"


def data_of(say, folder):
    """A report each of whose fields says what `say` makes of its name."""
    tasked = answers("run", 0.5)
    tasked = tasked.set_column(tasked.column_names.index("task"), "task", pa.array([say("task")] * len(tasked)))
    trials = [
        Trial(name, say("budget"), 0, 9, 1.0, tasked, variant)
        for name in ("random", say("selector"), "full")
        for variant in ("", say("variant"))
    ]
    turns = [{"from": "human", "value": say("question")}, {"from": "gpt", "value": say("answer")}]
    Image.new("RGB", (8, 8)).save(folder / say("picture"), "PNG")
    cards = [Shown(turns, say("card-task"), 0.5, say("picture"), str(folder)), Shown(turns, "", 0.5, say("lost"), None)]
    row = {"sample_id": 1, "source": "", "row": 1, "reason": say("reason"), "detail": say("detail")}
    curves = np.cumsum(np.ones((2, 2)), axis=1)
    return ReportData(
        title=say("title"),
        facts={say("fact-name"): say("fact")},
        trials=trials,
        majority=majority_baseline(tasked),
        pool_tasks={say("task"): 9},
        picked=[Picked(say("selector"), say("budget"), {say("task"): 3})],
        notes={say("notes-of"): say("note")},
        diagnoses={say("diagnosed"): Diagnosis(9, 1, 1, 2, 1)},
        composition=[
            Composition("topic", {say("field-value"): 9}, {say("choice"): {say("field-value"): 3}}),
            Composition(say("skill"), {f"{i}": 1 for i in range(9)}, {say("choice"): {}}),
        ],
        trajectories=Trajectories(
            [1, 2],
            curves,
            curves,
            curves,
            np.array([5, 4]),
            {say("cluster-budget"): np.array([1, 2])},
            {say("cluster-source"): np.array([5, 4])},
        ),
        similarity=[Similarity(say("scored"), np.linspace(0, 1, 9), {say("threshold"): 0.5})],
        galleries=[Gallery(say("gallery-of"), say("gallery-budget"), cards, [])],
        refused={say("refused-pool"): pa.Table.from_pylist([row], schema=REFUSED)},
        stages=[Stage(say("stage"), 1.0)],
        explored=explored_of(folder / "explored", say=lambda text: say(f"explored {text}")),
        answer=[say("answered")],
        about=About({"out": say("config")}, {say("command-name"): say("command")}),
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return [page(data_of(say, tmp_path_factory.mktemp("hostile"))) for say in (hostile, tame)]


def test_hostile_fields_make_no_element_and_no_attribute(pages):
    bad, good = map(read, pages)
    assert bad.tags == good.tags
    assert [(n, k) for n, k, _ in bad.attributes] == [(n, k) for n, k, _ in good.attributes]
    assert "<script" not in unbundled(pages[0])
    assert "49" not in "".join(t for t in bad.text if "7*7" in t)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_shown_as_it_is(pages, field):
    seen = read(pages[0])
    shown = [*seen.text, *(v for _, _, v in seen.attributes)]
    assert any(hostile(field) in text for text in shown)


def test_records_are_data_that_no_markup_can_leave(pages):
    """What scripts show of a record they are given as JSON, without a sign that could end its element."""
    (text,) = re.findall(r'<script type="application/json" id="explorer-data">(.*?)</script>', pages[0], re.DOTALL)
    assert not re.search("[<>&\u2028]", text)
    data = json.loads(text)
    assert data["choices"][0]["selector"].startswith("explored ")
    assert hostile("explored shapes") in data["sources"]
    assert any(hostile("explored yes") in turn[1] for one in data["full"] for turn in one["turns"])


def test_what_is_quoted_or_yaml_is_still_text(pages):
    titles = [v for n, k, v in read(pages[0]).attributes if (n, k) == ("span", "title")]
    assert any("lost" in v and "><script>a()<b onx=1>{{ 7*7 }}" in v for v in titles)
    assert any("config" in text and "<script>a()<b onx=1>" in text for text in read(pages[0]).text)


def test_names_in_a_figure_are_read_by_plotly_as_text(pages):
    for drawn in figures(pages[0]).values():
        names = [t["name"] for t in drawn["data"] if "name" in t] + [drawn["layout"]["title"]["text"]]
        assert all("<" not in n and html.escape(html.unescape(n), quote=False) == n for n in names)
    names = [html.unescape(t["name"]) for t in figures(pages[0])["chart-picks-0"]["data"]]
    assert hostile("selector")[:59].rstrip() in names[1]


def test_why_a_part_is_missing_is_text():
    missing = read(page(ReportData(absent={"pictures": hostile("absent")})))
    assert any(hostile("absent") in text for text in missing.text)
    assert "script" not in missing.tags


def test_names_of_checkpoints_and_tasks_in_an_imbalance_page_are_text():
    curve = {
        n: [0.5, 0.6] for n in ("lmar", "lmar_low", "lmar_high", "mass", "mass_low", "mass_high", "ratio_of_means")
    }

    def page_of(say):
        key = {"template": say("template"), "max_new_tokens": 2, "precision": say("precision")}
        facts = {"key": key, "rows": 3, "refused": 0, "curve": curve, "by_task": {say("task"): curve}}
        measured = Measured(say("name"), facts | {"rows_by_task": {say("task"): 3}})
        return document("Modality imbalance", imbalance_page([measured]))

    bad, good = page_of(hostile), page_of(tame)
    assert read(bad).tags == read(good).tags
    assert "<script" not in unbundled(bad)
    text = " ".join(read(bad).text)
    for field in ("template", "precision", "task", "name"):
        assert hostile(field) in text
