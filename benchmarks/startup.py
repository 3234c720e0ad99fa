"""What it costs to start: CPU seconds (user and system) of commands that only read what is on disk.

`ours`: `python -m vinnow COMMAND`; `loaded`: the same after `import torch, transformers, ray`, which is what each of them
paid when a run's config imported what carries it out. Median of `--rounds` fresh processes, on a pool of 10,000 generated
records without pictures. The bars: `--help` and `status` 1 s, `select --selector random` 2 s.
`python benchmarks/startup.py` writes benchmarks/results/startup.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, versions, write
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.opening import start
from vinnow.pool.ingest import IngestConfig, ingest

ROWS = 10_000
LOADED = "import torch, transformers, ray; from vinnow.pipelines.cli.main import main; main()"


def prepare(folder: Path) -> dict[str, list[str]]:
    """Make a source, its pool and a run's folder; return the commands by name."""
    turns = [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Three."}]
    source, pool, run = folder / "data.json", folder / "pool", folder / "run"
    source.write_text(json.dumps([{"id": str(i), "conversations": turns} for i in range(ROWS)]))
    ingest(IngestConfig(source=str(source)), str(pool))
    values = {"pool": {"source": str(source)}, "test": {"source": str(source)}, "model": {"twin": {}}}
    choice = {"selectors": [{"name": "random"}], "budgets": ["10%"], "finetune": {"parts": ["projector"]}}
    start(resolve({"out": str(run)} | values | choice))
    return {
        "--help": ["--help"],
        "status": ["status", str(run)],
        "doctor": ["doctor", str(source)],
        "select random": f"select --pool {pool} --selector random --budget 10% --out {folder / 'out'}".split(),
        "export": ["export", str(pool), "--out"],
    }


def cpu_seconds(command: list[str]) -> float:
    """Return the user and system seconds of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure every command both ways, alternately."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=str(RESULTS / "startup.json"))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    row: dict = {"rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, line in prepare(Path(folder)).items():
            sides: dict[str, list[float]] = {"ours": [], "loaded": []}
            for n in range(asked.rounds):
                more = [str(Path(folder, f"{n}.json")), str(Path(folder, f"{n}-loaded.json"))]
                for side, way, out in zip(sides, (["-m", "vinnow"], ["-c", LOADED]), more, strict=True):
                    command = [*line, out] if name == "export" else line
                    sides[side].append(cpu_seconds([sys.executable, *way, *command]))
            medians = {side: round(statistics.median(times), 3) for side, times in sides.items()}
            row["rows"][name] = medians | {"ratio": round(medians["loaded"] / medians["ours"], 2)}
    row |= {"ratio": row["rows"]["status"]["ratio"], "claim": "CPU seconds of a command that only reads, at its start"}
    row |= {"machine": "2 CPU cores", "versions": versions("torch", "transformers", "ray")}
    write(row, asked.out)


if __name__ == "__main__":
    main()
