"""A model asked and scored: `evaluate`, on a test pool, or on a benchmark's official files."""

import os
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...store.errors import InputError
from ...store.usage import MAX_REFUSED, Usage
from ..progress import bar, console, show, show_json
from .app import AsJson, Gpus, Out, Sets, app

if TYPE_CHECKING:
    from ...actors.cluster import RayConfig
    from ...evaluate.config import EvalReport, ShardsReport
    from ...evaluate.official import Prepared
    from ..remote import Asked


@app.command()
def evaluate(
    out: Out,
    model: Annotated[str | None, typer.Option(help="A checkpoint folder.")] = None,
    engine: Annotated[str, typer.Option(help="vinnow loads the model; openai asks an endpoint.")] = "vinnow",
    base_url: Annotated[str | None, typer.Option(help="The endpoint, with /v1 if it has one.")] = None,
    api_model: Annotated[str | None, typer.Option(help="The model's name, as the endpoint knows it.")] = None,
    pool: Annotated[str | None, typer.Option(help="A POOL folder of questions, made by `vinnow ingest`.")] = None,
    benchmark: Annotated[
        str, typer.Option(help="exact_match, yes_no, option_letter, pope, …, imbalance or open.")
    ] = "exact_match",
    files: Annotated[str | None, typer.Option(help="The folder of the benchmark's official files, for a pool.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="llava10 or icons; --files has a folder for each benchmark.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option(help="With --suite: benchmarks without a folder are left out.")
    ] = False,
    reference: Annotated[str | None, typer.Option(help="With --suite: another model's OUT, which is 100 %.")] = None,
    images: Annotated[str | None, typer.Option(help="With --files: the folder of their pictures.")] = None,
    beside: Annotated[list[str] | None, typer.Option(help="An earlier imbalance OUT, drawn too (repeatable).")] = None,
    gpus: Gpus = "auto",
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Answer questions greedily through an actor pool and score them: `OUT/evals.parquet`, one row a question.

    `--files` reads a benchmark's own files (docs/evaluation.md lists them) into `OUT/pool`, and gives its own figures:

    Example: `vinnow evaluate --benchmark pope --files pope --images coco/val2014 --model proxy/model --out pope-proxy`

    `--suite llava10 --files ROOT` asks all ten benchmarks of `ROOT/pope`, `ROOT/gqa`, …, and gives one table.

    `--benchmark imbalance` scores nothing: attention on the picture against the question, by layer, `OUT/imbalance.html`.
    `--benchmark open` scores nothing either: `OUT/answers.jsonl` is for `vinnow judge`.

    `--engine openai --base-url URL --api-model NAME` asks a server (vLLM, SGLang, OpenAI's own) instead of loading a model;
    `--set endpoint.concurrency=32` and the like reach the endpoint's config.
    """
    from ...evaluate.config import IMBALANCE
    from ..remote import Asked, chosen, run_remote
    from ..runs.plain_yaml import settings

    asked, prepared = Asked(engine, model, base_url, api_model, gpus), None
    if suite is not None or allow_missing or reference is not None:
        _check_suite(suite, files, {"--pool": pool, "--images": images, "--beside": beside, "--benchmark": benchmark})
        return _suite(asked, (str(suite), str(files), out, allow_missing, reference), settings(sets), as_json)
    _check_sources(pool, files, images, benchmark)
    values = {"benchmark": benchmark} | ({"pool": os.path.abspath(pool)} if pool else {}) | settings(sets)
    ray, is_remote = None, chosen(asked)
    if not is_remote:
        values, ray = _placed(_of_model(model) | values, gpus)
        if values["benchmark"] == IMBALANCE:
            return _imbalance(values, out, beside or [], ray, as_json)
        if beside:
            raise InputError("--beside is for --benchmark imbalance: scores are compared by a run's report.")
    if files is not None:
        values, prepared = _prepared(values, files, images, out)
    report = run_remote(asked, values, out, beside or []) if is_remote else _run_here(values, ray, out)
    _tell(report, prepared, out, as_json)


def _check_suite(suite: str | None, files: str | None, strays: dict[str, Any]) -> None:
    if suite is None:
        raise InputError("--allow-missing and --reference go with --suite.")
    if files is None:
        raise InputError("--suite wants --files ROOT, with a folder of official files for each of its benchmarks.")
    if strange := [name for name, value in strays.items() if value and value != "exact_match"]:
        raise InputError(f"{', '.join(strange)}: with --suite each benchmark has its own.")


def _suite(
    asked: "Asked", wanted: tuple[str, str, str, bool, str | None], values: dict[str, Any], as_json: bool
) -> None:
    """Ask the benchmarks of (suite, files, out, allow_missing, reference), and tell their table."""
    from ..remote import chosen
    from ..suite import SuiteAsked, evaluate_suite, render

    if chosen(asked):
        report = evaluate_suite(SuiteAsked(*wanted), values, asked)
    else:
        own = _of_model(asked.model)
        placed, ray = _placed(own | values, asked.gpus)
        report = evaluate_suite(SuiteAsked(*wanted, own["run"]), placed | {"ray": ray.model_dump()})
    show_json(report.plain()) if as_json else show(render(report))


def _of_model(model: str | None) -> dict[str, str]:
    """Return a checkpoint's folder, and the digest that its answers carry."""
    from ...models.check import checked_digest
    from ...models.folders import local_model

    return {"model": local_model(str(model)), "run": checked_digest(str(model))}


def _imbalance(values: dict[str, Any], out: str, beside: list[str], ray: "RayConfig", as_json: bool) -> None:
    from ..imbalance import run_imbalance

    page = run_imbalance(values, out, beside, ray)
    show_json({"page": page}) if as_json else show(page)


def _placed(values: dict[str, Any], gpus: str) -> tuple[dict[str, Any], "RayConfig"]:
    """Return the fields of an evaluation on this machine's devices, and the cluster's."""
    from ...actors.cluster import RayConfig
    from ..runs.placing import find_devices, place_evaluation

    ray = RayConfig.parse(values.pop("ray", {}), "ray")
    devices = find_devices(ray, gpus)
    console.print(f"computing on {devices}", markup=False, soft_wrap=True)
    return place_evaluation(values, devices, devices.gpus), ray


def _run_here(values: dict[str, Any], ray: "RayConfig | None", out: str) -> "EvalReport | ShardsReport":
    from ...actors.cluster import RayConfig, ensure_ray
    from ...evaluate.config import OPEN, EvalConfig, OpenConfig
    from ...evaluate.open_answers import answer_open
    from ...evaluate.run import evaluate as work
    from ...store.lock import check_free

    check_free(out)
    is_open = values["benchmark"] == OPEN
    config = (OpenConfig if is_open else EvalConfig).parse(values)
    ensure_ray(ray or RayConfig())
    with bar("evaluate", "parts") as tell:
        return (answer_open if is_open else work)(config, out, progress=tell)


def _check_sources(pool: str | None, files: str | None, images: str | None, benchmark: str) -> None:
    from ...evaluate.config import IMBALANCE

    if (pool is None) == (files is None):
        raise InputError(
            "evaluate asks a test pool (--pool) or a benchmark's official files (--files): name one of them."
        )
    if files is not None and benchmark == IMBALANCE:
        raise InputError("--benchmark imbalance reads a test pool (--pool), no benchmark's official files.")
    if images is not None and files is None:
        raise InputError("--images goes with --files; where a pool's pictures are now, --set image_root=FOLDER says.")


def _prepared(values: dict[str, Any], files: str, images: str | None, out: str) -> tuple[dict[str, Any], "Prepared"]:
    """Return the evaluation's fields with the pool of official files, and with the official length of answers."""
    from ...evaluate.official import prepare

    if "pool" in values:
        raise InputError("--set pool=… and --files: both name the questions.")
    prepared = prepare(str(values["benchmark"]), files, images, out, values.get("max_refused", MAX_REFUSED))
    return {"max_new_tokens": prepared.benchmark.tokens} | values | {"pool": prepared.pool}, prepared


def _tell(report: "EvalReport | ShardsReport", prepared: "Prepared | None", out: str, as_json: bool) -> None:
    from ...evaluate.official import submit

    submission = submit(prepared) if prepared else None
    if as_json:
        left_out = {"left_out": prepared.left_out, "submission": submission} if prepared else {}
        show_json(asdict(report) | left_out)
        return
    if "accuracy" not in asdict(report):
        answers = os.path.join(out, "answers.jsonl")
        show(f"{answers}: {report.rows:,} answers, which have no scores until they are judged")
        if prepared:
            words = ["vinnow", "judge", answers, "--files", prepared.files.folder]
            show(f"{shlex.join(words)} --base-url URL --api-model NAME --out FOLDER")
        show(Usage(report.rows, report.reasons, os.path.join(out, "refused")).line())
        return
    value = report.metrics.get("value")
    if not report.metrics or value is not None:
        pictured = "" if report.image_accuracy is None else f" (with a picture {report.image_accuracy:.4f})"
        show(f"accuracy {report.accuracy:.4f}{pictured}; by task {report.by_task}")
    if prepared:
        shown = "not known here" if value is None else f"{value:.4f}"
        show(f"{prepared.benchmark.name}: {report.metrics['headline']} {shown}")
        for name, part in report.metrics["parts"].items():
            show(f"  {name} {part:.4f}")
    for line in (*report.metrics.get("notes", []), *(prepared.lines() if prepared else [])):
        show(line)
    if submission:
        show(f"{submission}: for the benchmark's server")
    counted = "; those count as wrong" if report.refused else ""
    usage = Usage(report.rows - report.refused, report.reasons, os.path.join(out, "refused"))
    show(usage.line() + counted)
