"""Answers without one right answer: `judge`."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import bar, console, show, show_json
from .app import AsJson, Out, Sets, app

if TYPE_CHECKING:
    from ...evaluate.judging.run import JudgeReport


@app.command()
def judge(
    answers: Annotated[str, typer.Argument(help="A model's answers: JSON lines with question_id and text.")],
    files: Annotated[str, typer.Option(help="The folder with questions.jsonl, answers_gpt4.jsonl and context.jsonl.")],
    base_url: Annotated[str, typer.Option(help="The judge's endpoint, up to /v1: http://127.0.0.1:8000/v1.")],
    api_model: Annotated[str, typer.Option(help="The judge's name, as the endpoint knows it.")],
    out: Out,
    compat: Annotated[
        str | None, typer.Option(help="official: one order, and −1 for what cannot be read, as the released script.")
    ] = None,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Have answers to open questions judged beside a reference's: LLaVA-Bench-in-the-Wild's relative score.

    Both orders of each pair are judged; texts and scores are in `OUT/judged.parquet`. A run that was cut off goes on, and
    pays for nothing twice. `--set` reaches `endpoint.…`, `rule`, `system`, `temperature`, `max_tokens` and `max_refused`.

    Example: `vinnow judge answers.jsonl --files bench --base-url https://HOST/v1 --api-model gpt-4o --out judged`
    """
    from ...evaluate.judging.config import JudgeConfig
    from ...evaluate.judging.run import judge as work
    from ..remote import endpoint_of
    from ..runs.plain_yaml import settings

    values = settings(sets)
    endpoint = endpoint_of(base_url, api_model, values.pop("endpoint", {}))
    named = {"answers": answers, "files": files, "endpoint": endpoint} | ({"compat": compat} if compat else {})
    config = JudgeConfig.parse(values | named)
    console.print(f"asking {endpoint.model} at {endpoint.base_url}", markup=False, soft_wrap=True)
    with bar("judge", "prompts") as tell:
        report = work(config, out, tell)
    show_json(vars(report)) if as_json else _tell(report, compat)


def _tell(report: "JudgeReport", compat: str | None) -> None:
    from rich.table import Table

    from ...store.usage import by_reason

    table = Table("category", "questions", "relative %", "95 %", "model", "reference")
    for name, s in report.scores.items():
        span = "" if s["low"] is None else f"{s['low']:.1f} … {s['high']:.1f}"
        cells = [str(s["questions"]), f"{s['relative']:.1f}", span, f"{s['model']:.2f}", f"{s['reference']:.2f}"]
        table.add_row(_plain_cell(name), *cells)
    show(table)
    for order, value in report.by_order.items() if len(report.by_order) > 1 else ():
        show(f"with the {'reference' if order == 'reference_first' else 'model'} as Assistant 1 alone: {value:.1f}")
    if report.asked_again:
        show(f"{report.asked_again:,} texts had no scores, and the judge was asked again (max_asks)")
    if report.failed:
        counted = "−1 for both sides" if compat else "nobody's score"
        show(
            f"{report.failed:,} of {report.questions:,} questions have no scores, {by_reason(report.reasons)}: {counted}"
        )
    show(f"{report.path}: {report.requests:,} requests now, {report.cost:.4g} spent in all")


def _plain_cell(text: str) -> str:
    """Return a name out of a file as a cell of a table shows it: no markup, no control characters."""
    from rich.markup import escape

    from ..progress import plain

    return escape(plain(text))
