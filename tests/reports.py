"""A report with something in every part, some of it hostile, and a parser that checks what is read."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from explored import explored_of
from pictures import make_records, write_records
from vinnow.evaluate.metrics import majority_baseline
from vinnow.pipelines.report.composition import MOST
from vinnow.pipelines.report.costs import Choosing, Costs, Part, Trained
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
from vinnow.pipelines.report.hours import Held
from vinnow.select.diagnostics import Diagnosis
from vinnow.store.tables import EVALS, REFUSED

HOSTILE = '</style><script src="http://evil.example/x.js">alert(1)</script><img src=x onerror="a()">&\x00'
VOID = {"img", "meta"}


class Reader(HTMLParser):
    """Checks that tags nest, and keeps what was seen."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text, self.scripts = [], [], [], [], []

    def handle_starttag(self, name, attrs):
        self.tags.append(name)
        self.attributes += [(name, k, v or "") for k, v in attrs]
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.text.append(data)


def read(markup):
    reader = Reader()
    reader.feed(markup)
    reader.close()
    assert reader.open == []
    return reader


def figures(markup):
    """The figures of a page by the name of their chart, as Plotly is given them."""
    scripts = re.findall(r'<script type="application/json" id="figure-([\w-]+)">(.*?)</script>', markup, re.DOTALL)
    return {
        name: json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON")) for name, text in scripts
    }


def unbundled(markup):
    """A page without what draws its charts: the library, which is not ours, and the figures."""
    return re.sub("<script.*?</script>", "", markup, flags=re.DOTALL)


def answers(run, share, n=400, shift=0):
    """EVALS of one run: the first `share` of two interleaved tasks is right; `shift` rotates the samples."""
    rows = []
    for i in range(n):
        right = (i - shift) % n < round(share * n)
        reference = ("red", "blue")[i % 4 == 0] if i % 2 == 0 else ("yes", "no")[i % 3 == 0]
        rows.append(
            {
                "run": run,
                "benchmark": "exact_match",
                "task": ("color", "is_color")[i % 2],
                "sample": str(i),
                "correct": right,
                "score": float(right),
                "answer": reference if right else "?",
                "reference": reference,
            }
        )
    return pa.Table.from_pylist(rows, schema=EVALS)


def trial(selector, budget, rows, share, seed=0, shift=0):
    return Trial(selector, budget, seed, rows, 12.5, answers(f"{selector}{budget}{seed}", share, shift=shift))


def priced(trials, pool=14000):
    """Costs on CPUs: 2 cores for each training, a proxy that two share, one feature each."""
    proxy = Part("proxy", "training", Held(0, 40.0), 20.0, 2, 1, 10_000)
    choosing = {"random": Choosing("", [])}
    for name in dict.fromkeys(t.selector for t in trials if t.selector not in ("random", "full")):
        feature = Part(f"features-{name}", "features", Held(0, 60.0), 15.0, 1, 2, 2_000_000)
        took = {(t.budget, t.seed): {"scoring": 3.0, "scoring_cpu": 5.0, "picking": 0.5} for t in trials}
        choosing[name] = Choosing("votes", [proxy, feature], took)
    held = {
        (t.selector, t.budget, t.variant, t.seed): Trained(Held(0, 2 * t.train_seconds), Held(0, 7.0)) for t in trials
    }
    return Costs("CPU", choosing, held, pool, [HOSTILE])


def full_data(folder, held=1200):
    records, pictures = make_records(5)
    write_records(folder, records, pictures)
    shown = [Shown(r["conversations"], r["task"], 0.25, r.get("image"), str(folder / "images")) for r in records]
    lost = Shown(records[0]["conversations"], HOSTILE, 0.5, "pics/none.png", str(folder / "images"))
    rng = np.random.default_rng(0)
    curves = np.cumsum(rng.random((3, 4)), axis=1)
    trials = [
        trial("random", "10%", 1400, 0.40),
        trial("less", "10%", 1400, 0.55),
        trial("xmas", "10%", 1400, 0.402),
        trial(HOSTILE, "10%", 1400, 0.30),
        trial("random", "30%", 4200, 0.60),
        trial("less", "30%", 4200, 0.61),
        trial("full", "100%", 14000, 0.75),
    ]
    refused = [
        {"sample_id": None, "source": "", "row": 7917, "reason": "image_truncated", "detail": HOSTILE},
        {"sample_id": 3, "source": "", "row": -1, "reason": "duplicate", "detail": "occurrence 2"},
    ]
    return ReportData(
        title="vinnow demo " + HOSTILE,
        facts={"rows": "14,041", "note": HOSTILE},
        trials=trials,
        majority=majority_baseline(trials[0].evals),
        pool_tasks={"color": 3148, "is_color": 3987},
        picked=[
            Picked("random", "10%", {"color": 600, "is_color": 800}),
            Picked("less", "10%", {"color": 1399, "is_color": 1}),
            Picked(HOSTILE, "10%", {"color": 1400}),
        ],
        notes={HOSTILE: HOSTILE},
        diagnoses={"less": Diagnosis(5000, 17, 11, None, None), HOSTILE: Diagnosis(5000, 0, 3, 40, 2)},
        composition=[
            Composition("skill", {f"s{i} {HOSTILE}": 900 - i for i in range(MOST + 1)}, {"less 10%": {"s0 x": 3}}),
            Composition("image", {"with a picture": 6123, "text only": 7918}, {"less 10%": {"with a picture": 1377}}),
        ],
        trajectories=Trajectories(
            [10, 20, 30, 40],
            curves,
            curves - 0.1,
            curves + 0.1,
            np.array([123, 4567, 89]),
            {"10%": np.array([5, 6, 7])},
            {"coco": np.array([100, 4000, 0]), HOSTILE: np.array([23, 567, 89])},
        ),
        similarity=[Similarity("less", rng.normal(size=5000), {"10%": 1.2816, "30%": 0.5244})],
        galleries=[Gallery("less", "10%", shown, [lost])],
        refused={"pool": pa.Table.from_pylist(refused, schema=REFUSED), "test": REFUSED.empty_table()},
        stages=[
            Stage("ingest-pool", 2.0, 14051, 3_000_000),
            Stage("sweep", 98.0, held=Held(1.25, 40.0)),
            Stage(HOSTILE, 0.0, 5, held=Held(0.0, 0.001)),
        ],
        costs=priced(trials),
        explored=explored_of(folder / "explored", say=lambda text: text + HOSTILE.replace("\x00", ""), held=held),
        about=About({"out": HOSTILE, "proxy": {"lr": 1e-5}}, {HOSTILE: f"vinnow run {HOSTILE}"}),
    )
