"""What a lost actor, node or driver costs: the scenarios of tests/faults/cluster, on a simulated cluster of this machine.

Each is a whole command that is disturbed at a state that was seen; its tables are compared, value by value, with those of a
run that nobody disturbed. `lost` and `twice`: rows, steps or answers that are missing or there again, counted in the files
that are left; `again`: what was computed once more.
`python benchmarks/faults.py` prints the table and writes benchmarks/results/faults.json; `--only WORDS` (as of `pytest -k`)
renews the rows of these scenarios alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, versions, write

ROOT = Path(__file__).resolve().parent.parent


def run(file: Path, only: str) -> bool:
    """Run the scenarios; returns whether all of them held."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/faults/cluster", f"--junitxml={file}", "-k", only]
    command += ["-o", "python_files=test_*.py scenario_*.py"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def table(file: Path) -> list[dict]:
    """Return a row for each scenario."""
    rows = []
    for case in ElementTree.parse(file).getroot().iter("testcase"):
        properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        broken = [e.tag for e in case if e.tag in ("failure", "error", "skipped")]
        row = {"scenario": case.attrib["name"].removeprefix("test_").replace("_", " ")}
        row |= {"seconds": round(float(case.attrib["time"]), 1), "verdict": broken[0] if broken else "as undisturbed"}
        if properties:
            counts = {name: int(properties[name]) for name in ("of", "lost", "twice")}
            row |= counts | {"what": properties["what"], "again": properties["again"]}
        rows.append(row)
    return rows


def main() -> None:
    """Run, print and keep the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=str(RESULTS / "faults.json"))
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    load, place = os.getloadavg()[0], Path(asked.out)
    kept = json.loads(place.read_text())["rows"] if asked.only and place.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        held = run(Path(folder, "scenarios.xml"), asked.only)
        new = [row | {"load": round(load)} for row in table(Path(folder, "scenarios.xml"))]
    names = {row["scenario"] for row in new}
    rows = sorted([*new, *(row for row in kept if row["scenario"] not in names)], key=lambda row: row["scenario"])
    for row in rows:
        counts = f"{row['lost']} lost, {row['twice']} twice of {row['of']} {row['what']}" if "of" in row else ""
        print(f"{row['scenario']:<60} {row['seconds']:>7.1f} s  {row['verdict']:<15} {counts}")
    lost = sum(row.get("lost", 0) + row.get("twice", 0) for row in rows)
    row = {"rows": rows, "ratio": lost, "claim": "rows, steps and answers lost or there twice after losses"}
    row |= {
        "seconds": round(sum(r["seconds"] for r in rows), 1),
        "machine": "2 CPU cores; `load`: what others made of them",
    }
    write(row | {"versions": versions("ray", "torch")}, asked.out)
    sys.exit(not held)


if __name__ == "__main__":
    main()
