"""What a run's trials reached: one EVALS table, and the report made from what lies on disk."""

import pyarrow as pa

from ..store.errors import InputError
from ..store.files import exists, join
from ..store.tables import EVALS, read_rows, write_rows
from .progress import show
from .report.build import build_report
from .report.composition import composition_table
from .report.gather import gather
from .report.terminal import headline_table
from .sweep import Trial

TABLE = "evals.parquet"


def collect(out: str, trials: list[Trial]) -> str:
    """Write `RUN/evals.parquet`: every trial's answers, told apart by `run`."""
    tables = [read_rows(join(t.folder, "eval", TABLE), EVALS) for t in trials]
    path = join(out, TABLE)
    write_rows(path, pa.concat_tables(tables), EVALS)
    return path


def write_report(run_dir: str) -> str:
    """Print the headline table, write `RUN/report.html`, return its path.

    Raises:
        InputError: this is no run's folder.
    """
    if not exists(join(run_dir, "run.json")):
        raise InputError(f"{run_dir!r} is no run's folder: it has no run.json. Make one with `vinnow run`.")
    data = gather(run_dir, title=run_dir.rstrip("/").rsplit("/", 1)[-1])
    show(headline_table(data))
    if (chosen := composition_table(data)) is not None:
        show(chosen)
    return build_report(run_dir, data)
