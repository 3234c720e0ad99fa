"""What a lost actor, node or driver costs: the scenarios of tests/faults/cluster, on a simulated cluster of this machine.

Each is a whole command that is disturbed at a state that was seen; its tables are compared, value by value, with those of a
run that nobody disturbed. `lost` and `twice`: rows, steps or answers that are missing or there again, counted in the files
that are left; `again`: what was computed once more.
`python benchmarks/faults.py` prints the table and writes benchmarks/results/faults.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, versions, write

ROOT = Path(__file__).resolve().parent.parent


def run(file: Path) -> bool:
    """Run the scenarios; returns whether all of them held."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/faults/cluster", f"--junitxml={file}"]
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
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        held = run(Path(folder, "scenarios.xml"))
        rows = table(Path(folder, "scenarios.xml"))
    for row in rows:
        counts = f"{row['lost']} lost, {row['twice']} twice of {row['of']} {row['what']}" if "of" in row else ""
        print(f"{row['scenario']:<60} {row['seconds']:>7.1f} s  {row['verdict']:<15} {counts}")
    lost = sum(row.get("lost", 0) + row.get("twice", 0) for row in rows)
    row = {"rows": rows, "ratio": lost, "claim": "rows, steps and answers lost or there twice after losses"}
    row |= {"seconds": round(sum(r["seconds"] for r in rows), 1), "machine": f"2 CPU cores, load {load:.0f} before"}
    write(row | {"versions": versions("ray", "torch")}, asked.out)
    sys.exit(not held)


if __name__ == "__main__":
    main()
