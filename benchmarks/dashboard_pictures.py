"""Pictures of dashboards for docs/dashboards.md, of a real small run: `python benchmarks/dashboard_pictures.py FOLDER`.

FOLDER (a new one) gets a run of eight trials under a local Ray, which a
real Prometheus (Debian's package) scrapes. Chromium then pictures TensorBoard, Ray's dashboard and Prometheus' own page.
Grafana is not there: what its board would ask is asked of Prometheus, and drawn by `board_page`, which says so.
"""

import argparse
import html
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import prometheus
from pictures import make_records, write_records
from screenshots import IMAGES, chromium, opened, save
from vinnow.pipelines.dashboards.grafana import board
from vinnow.pipelines.dashboards.panels import filled

STEP = {"max_len": 256, "lr": 2e-3, "global_batch": 8, "micro_batch": 8, "max_steps": 40}


def write_run(folder: Path) -> Path:
    """Write a run's sources and YAML: two features, two selectors at two budgets, two seeds."""
    sources = {}
    for name, rows in (("pool", 240), ("test", 60)):
        (folder / name).mkdir(parents=True)
        records, pictures = make_records(rows, seed=rows)
        if name == "pool":
            records += [records[i] | {"id": f"lost{i}", "image": f"none{i}.png"} for i in range(4)]
        source = write_records(folder / name, records, pictures)
        sources[name] = {"source": source, "image_root": str(folder / name / "images"), "max_refused": 0.5}
    parts = {"rows_per_part": 16}
    values = sources | {
        "out": str(folder / "run"),
        "model": {"twin": {}},
        "features": [{"kind": "loss", **parts}, {"kind": "embedding", **parts}],
        "selectors": [{"name": "random"}, {"name": "diverse"}],
        "budgets": ["20%", "50%"],
        "seeds": [0, 1],
        "finetune": STEP,
        "evaluate": {"benchmark": "short_answer", "max_len": 256, "max_new_tokens": 2},
        "sweep": {"full": False},
    }
    (folder / "run.yaml").write_text(json.dumps(values))
    return folder / "run.yaml"


@contextmanager
def ray_head(tmp: Path, address: str) -> Iterator[str]:
    """Start a local Ray with its dashboard, without a token; yields the dashboard's address."""
    import ray
    from vinnow.actors.cluster import RayConfig, ensure_ray

    own = {"RAY_TMPDIR": str(tmp), "RAY_AUTH_MODE": "disabled", "RAY_PROMETHEUS_HOST": address}
    os.environ.update(own | {"RAY_metrics_report_interval_ms": "1000", "RAY_USAGE_STATS_ENABLED": "0"})
    ensure_ray(RayConfig(num_cpus=2, object_store_mb=200))
    try:
        yield f"http://{ray._private.worker._global_node.webui_url}"  # type: ignore[union-attr]
    finally:
        ray.shutdown()


@contextmanager
def tensorboard(logs: Path) -> Iterator[str]:
    """Start TensorBoard on a run's trials; yields its address."""
    from tensorboard.program import TensorBoard

    server = TensorBoard()
    server.configure(argv=["", "--logdir", str(logs), "--host", "127.0.0.1", "--port", "0", "--load_fast", "false"])
    yield server.launch()


def board_page(address: str, begin: float, end: float) -> str:
    """Return a page of the board's panels, as Prometheus answers them."""
    from plotly.offline import get_plotlyjs

    drawn, marks = [], []
    for panel in (p for p in board()["panels"] if p["type"] != "row"):
        lines = []
        for target in panel["targets"]:
            query = {"query": filled(target["expr"], window="15s"), "start": str(begin), "end": str(end), "step": "2"}
            for line in prometheus.ask(address, "query_range", **query)["result"]:
                name = target["legendFormat"]
                for label in ("WorkerId", *line["metric"]):
                    name = name.replace(f"{{{{{label}}}}}", line["metric"].get(label, ""))
                name = re.sub(r" *{{\w+}}", "", name)  # a label without a value
                times = [round(when - begin) for when, _ in line["values"]]
                lines.append({"x": times, "y": [float(v) for _, v in line["values"]], "name": name, "mode": "lines"})
        looks = panel["fieldConfig"]["defaults"]
        stacked = looks.get("custom", {}).get("stacking", {}).get("mode") == "normal"
        for line in lines:
            line |= {"stackgroup": "one"} if stacked else {}
        axis = {"rangemode": "tozero", "tickformat": ".0%" if looks["unit"] == "percentunit" else ""}
        layout = {"title": {"text": panel["title"], "font": {"size": 14}}, "height": 200, "width": 585, "yaxis": axis}
        layout |= {"margin": {"l": 48, "r": 8, "t": 32, "b": 28}, "font": {"size": 10}, "showlegend": True}
        if lines:
            marks.append(f'<div id="p{len(drawn)}"></div>')
            drawn.append({"data": lines, "layout": layout})
    said = "The board's queries as Prometheus answered them, drawn by our own script: this is not Grafana. Time in seconds."
    draw = "all.forEach((p, i) => Plotly.newPlot('p' + i, p.data, p.layout, {staticPlot: true}))"
    draw = f"const all = {json.dumps(drawn)}; {draw}"
    style = "body{font:14px sans-serif;margin:8px} .all{display:flex;flex-wrap:wrap}"
    return (
        f"<!doctype html><meta charset=utf-8><style>{style}</style><p>{html.escape(said)}</p>"
        f'<div class="all">{"".join(marks)}</div><script>{get_plotlyjs()}</script><script>{draw}</script>'
    )


def picture(browser: Any, url: str, name: str, wait: str, height: int = 800, still: float = 3.0) -> Path:
    """Picture a page once a selector is there and it has come to rest."""
    with opened(browser, url, 1200, height=height) as page:
        page.wait_for_selector(wait, timeout=60_000)
        page.wait_for_timeout(still * 1000)
        return save(page, IMAGES / f"{name}.png")


def queries_page(address: str, begin: float, end: float) -> str:
    """Return the address of Prometheus' own page with two of the board's queries."""
    titles = {p["title"]: p["targets"][0]["expr"] for p in board()["panels"] if p["type"] != "row"}
    fields = {}
    for number, title in enumerate(("What actors do", "Accuracy by choice")):
        own = {"expr": filled(titles[title], window="15s"), "tab": "0", "range_input": f"{int(end - begin)}s"}
        own |= {"end_input": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(end)), "step_input": "2"}
        fields |= {f"g{number}.{key}": value for key, value in own.items()}
    return f"{address}/graph?{urllib.parse.urlencode(fields)}"


def main() -> None:
    """Run, and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    write_run(folder)
    tmp = folder / "r"
    tmp.mkdir(exist_ok=True)
    with prometheus.started(folder / f"prometheus-{os.getpid()}", tmp) as address, ray_head(tmp, address) as dashboard:
        import ray

        begin = time.time()
        own = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        own["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # as a user types it: Ray's dashboard shows the line
        subprocess.run(["python", "-m", "vinnow", "run", "run.yaml"], env=os.environ | own, check=True, cwd=folder)
        end = time.time()
        (folder / "board.html").write_text(board_page(address, begin, end), encoding="utf-8")
        with chromium() as browser, tensorboard(folder / "run" / "sweep") as logs:
            pictures = [
                picture(browser, (folder / "board.html").as_uri(), "dashboard-board", "#p0 svg", height=1960),
                picture(browser, queries_page(address, begin, end), "dashboard-prometheus", "svg", height=1000),
                picture(browser, f"{dashboard}/#/actors", "dashboard-ray-actors", "table", 1000, still=10),
                picture(browser, f"{dashboard}/#/jobs", "dashboard-ray-jobs", "table", 620, still=10),
                picture(browser, f"{logs}#hparams", "dashboard-tensorboard-hparams", "body", still=25),
                picture(browser, f"{logs}#timeseries", "dashboard-tensorboard-curves", "body", still=25),
            ]
    for path in pictures:
        sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
