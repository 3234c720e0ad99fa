"""Models: `train`, `build`, `merge`, `export-projector`."""

import os
from typing import Annotated

import typer

from ..progress import console, show
from .app import Gpus, Out, Sets, app


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A TrainConfig as YAML, or the name of a recipe (train/recipes/).")],
    out: Out,
    gpus: Gpus = "auto",
    sets: Sets = None,
) -> None:
    """Train with Ray Train and DeepSpeed on a pool or on picks; a run that was cut off goes on.

    Example: `vinnow train llava15-lora --set model=vicuna --set pool=pool --set workers=4 --out runs/lora`
    """
    from ...actors.cluster import RayConfig, ensure_ray
    from ...train.config import TrainConfig
    from ...train.run import refuse_early
    from ...train.run import train as work
    from ..runs.begin import placed_training, require_workers, too_large
    from ..runs.placing import find_devices
    from ..runs.plain_yaml import apply_set, read_yaml, settings
    from ..runs.watch import training_bar

    values = read_yaml(config, "train")
    for entry in sets or []:
        apply_set(values, entry)
    ray = RayConfig.parse(values.pop("ray", {}), "ray")
    named = set(settings(sets)) | (set(values) if os.path.isfile(config) else set())
    devices = find_devices(ray, gpus)
    parsed = TrainConfig.parse(placed_training(values, named, devices))
    console.print(f"computing on {devices}, seed {parsed.seed}", markup=False, soft_wrap=True)
    refuse_early(parsed, out)
    for text in too_large(parsed, devices):
        console.print(f"warning: {text}", markup=False, soft_wrap=True)
    ensure_ray(ray)
    require_workers(parsed, "this training")
    with training_bar(os.path.basename(out), out):
        report = work(parsed, out)
    show(f"{report.model}: {report.steps} steps, loss {report.loss:.4f}, {report.seconds:.1f} s")
    for line in report.lines(parsed.max_len):
        show(line)


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
    from ...models.family.of_llava.build import BuildConfig
    from ...models.family.of_llava.build import build as work
    from ..runs.plain_yaml import settings

    values = settings(sets)
    fields = values.get("connector", {})
    values["connector"] = {"kind": connector} | fields if isinstance(fields, dict) else fields
    build_report = work(BuildConfig.parse({"llm": llm, "tower": tower} | values), out)
    whole = (
        "Hugging Face loads it alone" if build_report.plain else "its config.json names parts that vinnow alone builds"
    )
    show(
        f"{out}: {build_report.image_tokens} tokens per picture; train it with template: {build_report.template}; {whole}"
    )


@app.command()
def merge(
    model: Annotated[str, typer.Argument(help="An adapter's folder, or one of trained weights alone.")],
    out: Out,
    projector: Annotated[
        str | None, typer.Option(help="LLaVA's file of a projector (of stage 1), or of what was trained beside LoRA.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Write a whole model that Hugging Face loads alone: a LoRA merged into its base, LLaVA's projector put in.

    Example: `vinnow merge runs/lora/model --out merged`
    """
    from ...models.merge import merge as work

    show(f"{work(model, out, projector, dtype)}: a whole model")


@app.command("export-projector")
def export_projector(
    model: Annotated[str, typer.Argument(help="A checkpoint folder.")],
    out: Annotated[str, typer.Option(help="The file; non_lora_trainables.bin gets the names that go with LoRA.")],
) -> None:
    """Write a model's projector as LLaVA's `mm_projector.bin`.

    Example: `vinnow export-projector runs/stage1/model --out mm_projector.bin`
    """
    from ...models.family.of_llava.files import write_projector
    from ...models.load import load
    from ...store.claim import check_new_file

    check_new_file(out)
    write_projector(load(model).model, out)
    show(out)
