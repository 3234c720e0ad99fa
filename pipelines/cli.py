"""The `vinnow` command. Each subcommand is one stage; `run` and `demo` are all of them in order."""

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..store.errors import InputError, VinnowError
from .progress import bar, console

if TYPE_CHECKING:
    from ..actors.config import CheckpointRef

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Choose which visual-instruction data is worth training on.

A pool (LLaVA JSON) is **ingested** once, **features** of it are written once by actor pools, every **select**or is then a
cheap query, and a **sweep** fine-tunes and evaluates each choice beside random and the whole pool.

Start with `vinnow demo` (CPU, minutes), then `vinnow plan RUN.yaml` for your own data.""",
)

Sets = Annotated[list[str] | None, typer.Option("--set", help="Override one config field: a.b=c (repeatable).")]
Out = Annotated[str, typer.Option(help="Output folder.")]
RunFile = Annotated[str, typer.Argument(help="The run's YAML, or the name of a recipe of the package.")]
Format = Annotated[str, typer.Option("--format", help="auto, llava, sharegpt, scienceqa, parquet or webdataset.")]
Split = Annotated[str | None, typer.Option(help="The split, where a source has several (ScienceQA, Parquet shards).")]
PoolDir = Annotated[str, typer.Option(help="A POOL folder, made by `vinnow ingest`.")]


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="Records: LLaVA or ShareGPT JSON, Parquet or tar shards, ScienceQA.")],
    out: Out,
    images: Annotated[str | None, typer.Option(help="The folder or archive that image paths count from.")] = None,
    format_name: Format = "auto",
    split: Split = None,
    sets: Sets = None,
) -> None:
    """Turn records into a POOL folder; every row ends there or in `refused.parquet` with a reason.

    Example: `vinnow ingest llava_v1_5_mix665k.json --images playground/data --out pool`
    """
    from ..pool.ingest import IngestConfig
    from ..pool.ingest import ingest as work
    from .config import settings

    given = {"source": source, "image_root": images, "format": format_name, "split": split}
    config = IngestConfig.parse(given | settings(sets))
    with bar("ingest", "rows") as tell:
        report = work(config, out, progress=lambda rows: tell(rows, 0))
    console.print(f"{report.rows} rows in {out}, {report.refused} refused {dict(report.reasons)}")


@app.command()
def doctor(
    source: Annotated[str, typer.Argument(help="Records: LLaVA or ShareGPT JSON, Parquet or tar shards, ScienceQA.")],
    images: Annotated[str | None, typer.Option(help="The folder or archive that image paths count from.")] = None,
    format_name: Format = "auto",
    split: Split = None,
    json_out: Annotated[str | None, typer.Option("--json", help="Also write the findings as JSON.")] = None,
    max_len: Annotated[
        int | None, typer.Option(min=1, help="Warn of longer records: words, or tokens with `--set tokenizer=FOLDER`.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Say what is wrong with a data set, without writing a pool.

    Exit code 0: nothing is refused (there may be warnings); 1: some rows are; 2: the source cannot be read.
    """
    from ..pool.doctor import examine, render
    from ..pool.ingest import IngestConfig
    from ..store.files import write_json
    from .config import settings

    given = {"source": source, "image_root": images, "format": format_name, "split": split}
    config = IngestConfig.parse(given | settings(sets))
    with bar("doctor", "rows") as tell:
        report = examine(config, lambda rows: tell(rows, 0), max_len)
    for table in render(report):
        console.print(table)
    if json_out:
        write_json(json_out, report.as_dict())
    raise typer.Exit(1 if report.refused else 0)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A TrainConfig as YAML, or the name of a recipe (train/recipes/).")],
    out: Out,
    sets: Sets = None,
) -> None:
    """Train with Ray Train and DeepSpeed on a pool or on picks; a run that was cut off goes on.

    Example: `vinnow train llava15-lora --set model=vicuna --set pool=pool --set workers=4 --out runs/lora`
    """
    from ..actors.cluster import RayConfig, ensure_ray
    from ..train.config import TrainConfig
    from ..train.run import train as work
    from .config import apply_set, read_yaml
    from .watch import training_bar

    values = read_yaml(config, "train")
    for entry in sets or []:
        apply_set(values, entry)
    ray = RayConfig.parse(values.pop("ray", {}), "ray")
    parsed = TrainConfig.parse(values)
    ensure_ray(ray)
    with training_bar(os.path.basename(out), out):
        report = work(parsed, out)
    console.print(f"{report.model}: {report.steps} steps, loss {report.loss:.4f}, {report.seconds:.1f} s")


@app.command()
def features(
    pool: PoolDir,
    checkpoint: Annotated[list[str], typer.Option(help="STEP=FOLDER of a proxy checkpoint (repeatable).")],
    out: Out,
    kind: Annotated[str, typer.Option(help="gradient, influence, trajectory, loss or embedding.")] = "gradient",
    targets: Annotated[bool, typer.Option(help="The pool is a target set: keep its tasks.")] = False,
    target_pool: Annotated[str | None, typer.Option(help="The target set's pool, for influence.")] = None,
    optimizer: Annotated[
        list[str] | None, typer.Option(help="STEP=PATH of a checkpoint's optimizer state, if it is not in its folder.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Stream the pool through an actor pool into the feature store; finished parts are not computed again.

    Example: `vinnow features --pool pool --checkpoint 100=proxy/checkpoint-100 --kind trajectory --out features`

    `--set` reaches the feature config (`projection.kind=sjlt`, `mode=adam`, `dtype=int8`), `actors.…` and `ray.…`.
    """
    from ..actors.cluster import RayConfig, ensure_ray
    from ..actors.config import ActorResources, FeatureConfig
    from ..actors.stream import make_spec, run_features
    from .config import settings

    values = settings(sets)
    ray = RayConfig.parse(values.pop("ray", {}), "ray")
    resources = ActorResources.parse(values.pop("actors", {}), "actors")
    config = FeatureConfig.parse({"kind": kind} | values)
    states = {c.step: c.path for c in map(_checkpoint, optimizer or [])}
    checkpoints = [replace(c, optimizer=states.pop(c.step, None)) for c in map(_checkpoint, checkpoint)]
    if states:
        raise InputError(f"--optimizer names steps {sorted(states)} that no --checkpoint has.")
    spec = make_spec(pool, checkpoints, config, out, targets=targets, target_pool=target_pool)
    ensure_ray(ray)
    with bar(f"{kind} features", "parts") as tell:
        report = run_features(spec, resources, tell)
    console.print(
        f"{report.parts} parts written, {report.skipped_parts} were there; {report.rows} rows, "
        f"{report.refused} refused, {report.seconds:.1f} s"
        + "".join(f", {name.replace('_', ' ')} {value:.3g}" for name, value in report.extra.items())
    )


@app.command()
def select(
    pool: PoolDir,
    selector: Annotated[str, typer.Option(help="random, stratified, less, xmas, …")],
    budget: Annotated[list[str], typer.Option(help="Rows (5000) or a share (10%); repeatable.")],
    out: Out,
    features: Annotated[str | None, typer.Option(help="The feature store, made by `vinnow features`.")] = None,
    targets: Annotated[str | None, typer.Option(help="The targets' feature store (LESS).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.")] = 0,
    sets: Sets = None,
) -> None:
    """Choose rows: `OUT/picks/SELECTOR-BUDGET.parquet`, and `.json` in LLaVA's own format."""
    from ..select import registry
    from ..select.run import select as work
    from .config import settings
    from .picking import export_picks, make_view

    config = settings(sets)
    needs = registry.make(selector, config).needs
    view = make_view(pool, features, targets, needs)
    for label, path in work(view, selector, config, list(budget), seed, out).items():
        console.print(f"{selector} {label}: {path} and {export_picks(pool, path)}")


@app.command()
def export(
    pool: Annotated[str, typer.Argument(help="A POOL folder.")],
    out: Annotated[str, typer.Option(help="The file to write: .json, or .parquet.")],
    picks: Annotated[str | None, typer.Option(help="A PICKS file; without it, the whole pool.")] = None,
    format_name: Annotated[str, typer.Option("--format", help="llava, sharegpt or parquet.")] = "llava",
    embed_images: Annotated[bool, typer.Option("--embed-images", help="Put pictures into the Parquet file.")] = False,
    pictures: Annotated[str, typer.Option(help="Beside JSON: write files, name, or auto.")] = "auto",
) -> None:
    """Write picks for another tool: LLaVA JSON, ShareGPT with `dataset_info.json` (LLaMA-Factory), or Parquet.

    Example: `vinnow export pool --picks out/picks/less-10pct.parquet --format sharegpt --out data/less.json`
    """
    from ..pool.export import export as work
    from ..pool.reader import Pool
    from .picking import ranked_ids

    reader = Pool(pool)
    done = work(reader, ranked_ids(picks) if picks else reader.ids(), out, format_name, embed_images, pictures)
    console.print(f"{done.rows} rows in {out}" + (f", pictures beside it in {done.pictures}" if done.pictures else ""))
    if done.odd_marks:
        console.print(f"{done.odd_marks} rows hold a literal <image> that is no picture; LLaMA-Factory stops at them.")


@app.command()
def build(
    llm: Annotated[str, typer.Option(help="A language model's folder.")],
    tower: Annotated[str, typer.Option(help="A vision tower's folder: CLIP, SigLIP or DINOv2.")],
    out: Out,
    connector: Annotated[str, typer.Option(help="mlp2x_gelu, linear, identity, resampler, qformer.")] = "mlp2x_gelu",
    sets: Sets = None,
) -> None:
    """Put a LLaVA together from a language model, a vision tower and a fresh connector.

    Example: `vinnow build --llm vicuna-7b --tower clip-large-336 --out llava --set dtype=bfloat16`

    `--set` also reaches `connector.queries` (`.width`, `.layers`, `.heads`), `feature_layer`, `image_size` and `seed`.
    """
    from ..models.family.build import BuildConfig
    from ..models.family.build import build as work
    from .config import settings

    values = settings(sets)
    values["connector"] = {"kind": connector} | values.get("connector", {})
    made = work(BuildConfig.parse({"llm": llm, "tower": tower} | values), out)
    whole = "Hugging Face loads it alone" if made.plain else "its config.json names parts that vinnow alone builds"
    console.print(f"{out}: {made.image_tokens} tokens a picture; train it with template: {made.template}; {whole}")


@app.command()
def merge(
    model: Annotated[str, typer.Argument(help="An adapter's folder, or one of trained weights alone.")],
    out: Out,
    projector: Annotated[str | None, typer.Option(help="LLaVA's mm_projector.bin or non_lora_trainables.bin.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Write a whole model that Hugging Face loads alone: a LoRA merged into its base, LLaVA's projector put in.

    Example: `vinnow merge runs/lora/model --out merged`
    """
    from ..models.merge import merge as work

    console.print(f"{work(model, out, projector, dtype)}: a whole model")


@app.command("export-projector")
def export_projector(
    model: Annotated[str, typer.Argument(help="A checkpoint folder.")],
    out: Annotated[str, typer.Option(help="The file; non_lora_trainables.bin gets the names that go with LoRA.")],
) -> None:
    """Write a model's projector as LLaVA's `mm_projector.bin`.

    Example: `vinnow export-projector runs/stage1/model --out mm_projector.bin`
    """
    from ..models.llava_files import write_projector
    from ..models.load import load

    write_projector(load(model).model, out)
    console.print(out)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="A checkpoint folder.")],
    pool: PoolDir,
    out: Out,
    benchmark: Annotated[str, typer.Option(help="exact_match, yes_no, option_letter, … or imbalance.")] = "exact_match",
    beside: Annotated[list[str] | None, typer.Option(help="An earlier imbalance OUT, drawn too (repeatable).")] = None,
    sets: Sets = None,
) -> None:
    """Answer a test pool greedily through an actor pool and score it: `OUT/evals.parquet`, one row a question.

    `--benchmark imbalance` scores nothing: attention on the picture against the question, by layer, `OUT/imbalance.html`.
    """
    from ..actors.cluster import RayConfig, ensure_ray
    from ..evaluate.config import IMBALANCE, EvalConfig
    from ..evaluate.run import evaluate as work
    from ..models.load import model_digest
    from .config import settings
    from .imbalance import run_imbalance

    given = {"model": os.path.abspath(model), "pool": os.path.abspath(pool), "run": model_digest(model)}
    values = given | {"benchmark": benchmark} | settings(sets)
    ray = RayConfig.parse(values.pop("ray", {}), "ray")
    if values["benchmark"] == IMBALANCE:
        console.print(run_imbalance(values, out, beside or [], ray), soft_wrap=True)
        return
    if beside:
        raise InputError("--beside is for --benchmark imbalance: scores are compared by a run's report.")
    config = EvalConfig.parse(values)
    ensure_ray(ray)
    with bar("evaluate", "parts") as tell:
        report = work(config, out, progress=tell)
    console.print(f"accuracy {report.accuracy:.4f}; by task {report.by_task}")


@app.command()
def plan(run: RunFile, sets: Sets = None) -> None:
    """Dry run: what would run, on what, how many rows, bytes and steps, at what price; and the resolved config."""
    from .config import load_run
    from .plan import make_plan, print_plan

    print_plan(make_plan(load_run(run, sets)))


@app.command("run")
def run_command(run: RunFile, sets: Sets = None) -> None:
    """All stages of a run, from the pool to the report; done stages are skipped."""
    from .config import load_run
    from .whole import whole_run

    whole_run(load_run(run, sets))


@app.command()
def sweep(run: RunFile, sets: Sets = None) -> None:
    """Fine-tune and evaluate every choice of a run (its earlier stages run first if they have not)."""
    from .config import load_run
    from .whole import whole_run

    whole_run(load_run(run, sets), report=False)


@app.command()
def status(
    run_folder: Annotated[str, typer.Argument(help="A run's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Every stage of a run: done, under way or waiting, with rows, refused rows, seconds and bytes."""
    from .status import as_json as plain
    from .status import render
    from .status import status as work

    found = work(run_folder)
    if as_json:
        typer.echo(plain(found))
    else:
        console.print(render(found))


@app.command()
def report(run_folder: Annotated[str, typer.Argument(help="A run's folder.")]) -> None:
    """Write `report.html` again from what a run left on disk, and print its table."""
    from .results import write_report

    console.print(write_report(run_folder))


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Output folder.")] = "runs/demo",
    sets: Sets = None,
) -> None:
    """The main job on real embedded data (easy-VQA), on a CPU in minutes; then open `runs/demo/report.html`."""
    from .demo.run import run_demo

    run_demo(out, sets or [])


def _checkpoint(text: str) -> "CheckpointRef":
    from ..actors.config import CheckpointRef

    step, sep, path = text.partition("=")
    if not sep or not step.isdigit():
        raise InputError(f"--checkpoint and --optimizer want STEP=FOLDER, not {text!r}.")
    return CheckpointRef(int(step), path)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback alone."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except InputError as error:
        console.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True)
        sys.exit(2)
    except VinnowError as error:
        console.print(f"[bold red]failed:[/] {_plain(error)}", soft_wrap=True)
        sys.exit(1)


def _plain(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))


if __name__ == "__main__":
    main()
