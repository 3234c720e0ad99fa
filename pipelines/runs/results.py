"""The report, made from what lies on disk."""

from ...store.errors import InputError
from ...store.files import exists, join
from ..progress import show
from ..report.answer import answers
from ..report.answer_files import write_answer
from ..report.build import build_report
from ..report.composition import composition_table
from ..report.gather import gather
from ..report.headline import headline
from ..report.terminal import headline_table


def write_report(run_dir: str) -> str:
    """Print the headline table, write `RUN/report.html`, `answer.csv` and `answer.parquet`; return the page's path.

    Raises:
        InputError: this is no run's folder.
    """
    if not exists(join(run_dir, "run.json")):
        raise InputError(f"{run_dir!r} is no run's folder: it has no run.json. Make one with `vinnow run`.")
    data = gather(run_dir, title=run_dir.rstrip("/").rsplit("/", 1)[-1])
    rows = headline(data.trials)
    show(headline_table(data, rows))
    if (chosen := composition_table(data)) is not None:
        show(chosen)
    if rows:
        write_answer(run_dir, answers(rows, data))
    return build_report(run_dir, data, rows)
