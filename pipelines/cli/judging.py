"""A language model that judges: open answers, and ScienceQA's by two schemes: `judge`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...store.errors import InputError
from ..progress import bar, console, show, show_json
from .app import AsJson, Out, Sets, app

if TYPE_CHECKING:
    from ...evaluate.judging.run import JudgeReport
    from ...evaluate.judging.scienceqa import SchemeReport
    from ...evaluate.remote.config import EndpointConfig


@app.command()
def judge(
    answers: Annotated[
        str,
        typer.Argument(help="JSON lines with question_id and text; with --scheme an evaluation's folder."),
    ],
    base_url: Annotated[str, typer.Option(help="The judge's endpoint, up to /v1: http://127.0.0.1:8000/v1.")],
    api_model: Annotated[str, typer.Option(help="The judge's name, as the endpoint knows it.")],
    out: Out,
    files: Annotated[
        str | None, typer.Option(help="The folder with questions.jsonl, answers_gpt4.jsonl and context.jsonl.")
    ] = None,
    compat: Annotated[
        str | None, typer.Option(help="official: one order, and −1 for what cannot be read, as the released script.")
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(help="ScienceQA with a language model: complement or judge, as LLaVA's paper has them."),
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="With --scheme: the evaluation's POOL.", show_default="ANSWERS/pool")
    ] = None,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Have answers to open questions judged beside a reference's: LLaVA-Bench-in-the-Wild's relative score.

    Both orders of each pair are judged; texts and scores are in `OUT/judged.parquet`. A run that was cut off goes on, and
    pays for nothing twice. `--set` reaches `endpoint.…`, `rule`, `system`, `temperature`, `max_tokens` and `max_refused`.

    Example: `vinnow judge answers.jsonl --files bench --base-url https://HOST/v1 --api-model gpt-4o --out judged`

    `--scheme complement|judge` settles a model's answers to ScienceQA with the language model's own: `OUT/evals.parquet`.

    Example: `vinnow judge evals/sqa --scheme judge --base-url https://HOST/v1 --api-model gpt-4o --out evals/sqa-judge`
    """
    from ..remote import endpoint_of
    from ..runs.plain_yaml import settings

    values = settings(sets)
    values["endpoint"] = endpoint_of(base_url, api_model, values.pop("endpoint", {}))
    if scheme is not None:
        if stray := [n for n, value in (("--files", files), ("--compat", compat)) if value is not None]:
            raise InputError(
                f"{' and '.join(stray)}: for open answers alone; --scheme reads an evaluation of scienceqa."
            )
        _settle(values | {"evaluation": answers, "scheme": scheme} | ({"pool": pool} if pool else {}), out, as_json)
        return
    if files is None or pool is not None:
        raise InputError(
            "open answers want --files, the benchmark's folder, and no --pool; an evaluation of scienceqa wants --scheme."
        )
    _judge_open(values | {"answers": answers, "files": files} | ({"compat": compat} if compat else {}), out, as_json)


def _judge_open(values: dict[str, Any], out: str, as_json: bool) -> None:
    from ...evaluate.judging.config import JudgeConfig
    from ...evaluate.judging.run import judge as work

    config = JudgeConfig.parse(values)
    _asking(config.endpoint)
    with bar("judge", "prompts") as tell:
        report = work(config, out, tell)
    show_json(vars(report)) if as_json else _tell(report, config.compat)


def _settle(values: dict[str, Any], out: str, as_json: bool) -> None:
    from ...evaluate.judging.scheme_config import SchemeConfig
    from ...evaluate.judging.scienceqa import judge_scienceqa

    config = SchemeConfig.parse(values)
    _asking(config.endpoint)
    with bar("judge", "questions") as tell:
        report = judge_scienceqa(config, out, tell)
    show_json(vars(report)) if as_json else _tell_scheme(report, config.scheme)


def _asking(endpoint: "EndpointConfig") -> None:
    console.print(f"asking {endpoint.model} at {endpoint.base_url}", markup=False, soft_wrap=True)


def _tell_scheme(report: "SchemeReport", scheme: str) -> None:
    from rich.table import Table

    from ...store.usage import by_reason

    table = Table("who", "image accuracy", "accuracy")
    for name, metrics in ((scheme, report.combined), ("the model", report.model), ("text alone", report.second)):
        everything = metrics["parts"]["accuracy"]
        pictured = f"{metrics['value']:.4f}" if metrics["headline"] == "image accuracy" else ""
        table.add_row(name, pictured, f"{everything:.4f}")
    show(table)
    counts = report.counts
    show(f"{report.rows:,} questions, on {counts['differ']:,} the two differ, {counts['judged']:,} were asked again")
    show(
        f"no letter could be read: of the model {counts['model_unread']:,}, of text alone {counts['second_unread']:,}, of "
        f"both {counts['both_unread']:,}, of the judge {counts['judge_unread']:,}; one of the two was right on "
        f"{report.either:.4f}"
    )
    if counts["unasked"]:
        show(f"{counts['unasked']:,} questions that the evaluation refused: wrong, and asked of nobody")
    if report.reasons:
        show(f"{counts['lost']:,} questions without anything of the endpoint, {by_reason(report.reasons)}: wrong")
    show(f"{report.path}: {report.requests:,} requests now, {report.cost:.4g} spent in all")


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
