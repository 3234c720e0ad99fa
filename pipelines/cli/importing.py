"""Answers that another program scored: `import-lmms`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..progress import show, show_json
from .app import AsJson, Out, app


@app.command("import-lmms")
def import_lmms(
    files: Annotated[list[str], typer.Argument(help="*_samples_TASK.jsonl of one task by one model (--log_samples).")],
    metric: Annotated[str, typer.Option(help="The figure of a row: METRIC, or METRIC.FIELD. Higher is better.")],
    out: Out,
    most: Annotated[float, typer.Option(help="The metric's highest value, by which it is divided.")] = 1.0,
    clusters: Annotated[
        list[str] | None,
        typer.Option(help="A file of --model_args clusters=FILE: which picture is whose (repeatable)."),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Who answered.", show_default="the files' folder")] = None,
    as_json: AsJson = False,
) -> None:
    """Read lmms-eval's per-sample files into `OUT/evals.parquet`, for `vinnow compare`: one row a document.

    Documents are paired by `doc_hash`. Those about one picture are a cluster, where the file names it or `--clusters` does.

    Example: `vinnow import-lmms logs/*_samples_pope.jsonl --metric pope_accuracy.score --out evals/pope`
    """
    from ...evaluate.lmms.samples import SamplesConfig, import_samples

    values: dict[str, Any] = {
        "files": tuple(files),
        "metric": metric,
        "most": most,
        "run": run,
        "clusters": tuple(clusters or ()),
    }
    report = import_samples(SamplesConfig.parse(values), out)
    if as_json:
        show_json(asdict(report))
        return
    show(f"{report.path}: {report.rows:,} answers, {metric} {report.score:.4f}")
    if most > 1 >= report.highest:
        show(
            f"no row has more than {report.highest:g} of {most:g}: was --most {most:g} meant? Scores are divided by it."
        )
    if report.by_number:
        show(
            f"{report.by_number:,} rows have a doc_hash of nothing, as lmms-eval 0.7.3 writes it: they are paired by "
            "doc_id and target, so both models must have been asked the same files."
        )
    if report.no_picture:
        show(
            f"{report.no_picture:,} rows do not name their picture: each is drawn alone, and intervals may be too narrow "
            "(--clusters reads what lmms-eval's --model_args clusters=FILE wrote)."
        )
