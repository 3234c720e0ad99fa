"""How much memory a piece of code takes at most, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

PARENT = Path(__file__).parents[2]
_AROUND = """
import json, resource, sys
sys.path.insert(0, {parent!r})
# what is imported counts for nothing
import numpy, pyarrow.parquet
from vinnow.pool.images import ImageError, load_image
from vinnow.pool.ingest import IngestConfig, ingest
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = None
{code}
print(json.dumps([(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, said]))
"""


def peak_of(code: str) -> tuple[float, object]:
    """Run code that may set `said`; return by how many MiB the process grew, and what it said."""
    script = _AROUND.format(parent=str(PARENT), code=code)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    grown, said = json.loads(done.stdout.splitlines()[-1])
    return grown, said


def peak_of_picture(root: object, relative: str, glance: bool = False) -> tuple[float, object]:
    """Load a picture; `said` is its size, or the reason of its refusal."""
    return peak_of(
        f"try:\n    said = load_image({str(root)!r}, {relative!r}, glance={glance}).size\n"
        "except ImageError as error:\n    said = error.reason"
    )


def peak_of_ingest(source: object, out: object, **options: object) -> tuple[float, object]:
    """Ingest in one process; `said` is [rows, reasons], or the message of an error."""
    config = {"source": str(source), "workers": 0, "max_refused": 1.0} | options
    return peak_of(
        f"try:\n    report = ingest(IngestConfig(**{config!r}), {str(out)!r})\n    said = [report.rows, report.reasons]\n"
        "except ValueError as error:\n    said = str(error)"
    )
