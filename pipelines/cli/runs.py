"""Whole runs: `plan`, `run`, `sweep`, `status`, `report`, `show`, `demo`."""

from dataclasses import asdict
from typing import Annotated

import typer

from ...store.errors import InputError
from ..progress import console, show, show_json
from .app import AsJson, Gpus, RunFile, Sets, app


@app.command()
def plan(run: RunFile, gpus: Gpus = "auto", as_json: AsJson = False, sets: Sets = None) -> None:
    """Dry run: what would run, on what, how many rows, bytes and steps, at what price; and the resolved config.

    Exit code 2, as `vinnow run` would end: the config is refused, or asks for GPUs or CPUs that are not there.
    """
    from ...models.check import check_without_weights
    from ..runs.ahead import foresee
    from ..runs.begin import load_placed
    from ..runs.missing import missing
    from ..runs.plan import make_plan
    from ..runs.plan_shown import plan_json, print_plan

    config = load_placed(run, sets, gpus)
    ahead = foresee(config)
    bare = config.model.path is not None and check_without_weights(config.model.path)
    lines = make_plan(config, ahead, checked=bare)
    if bare:
        what = f"{config.model.path} holds no weights: this is planned by its settings, and `vinnow run` wants them."
        console.print(what, markup=False, soft_wrap=True)
    for line in ahead.lines:
        console.print(line, markup=False, soft_wrap=True)
    if as_json:
        show_json(plan_json(config, lines))
    else:
        print_plan(config, lines)
    if lacks := missing(config, lines):  # behind the table: who plans for another machine wants to see it
        raise InputError("\n".join(lacks))


@app.command("run")
def run_command(run: RunFile, gpus: Gpus = "auto", sets: Sets = None) -> None:
    """All stages of a run, from the pool to the report; done stages are skipped."""
    from ..runs.begin import load_placed
    from ..runs.run import run_stages

    run_stages(load_placed(run, sets, gpus))


@app.command()
def sweep(run: RunFile, gpus: Gpus = "auto", sets: Sets = None) -> None:
    """Fine-tune and evaluate every choice of a run (its earlier stages run first if they have not)."""
    from ..runs.begin import load_placed
    from ..runs.run import run_stages

    run_stages(load_placed(run, sets, gpus), report=False)


@app.command()
def status(
    run_folder: Annotated[str, typer.Argument(help="A run's folder or URI; with --address also a job's id.")],
    as_json: AsJson = False,
    address: Annotated[str | None, typer.Option(help="URL of a cluster's job API: ask there, not here.")] = None,
) -> None:
    """Every stage of a run: done, under way or waiting, with rows, refused rows, seconds and bytes."""
    from ..runs.status import render
    from ..runs.status import status as work

    if address is not None:
        _show_afar(run_folder, address, as_json)
        return
    stages = work(run_folder)
    if as_json:
        show_json([asdict(stage) for stage in stages])
    else:
        show(render(stages))


def _show_afar(name: str, address: str, as_json: bool) -> None:
    from ..jobs.afar import status_afar
    from ..jobs.client import address_of
    from ..runs.status import render

    afar = status_afar(name, address_of(address))
    if as_json:
        show_json(asdict(afar))
        return
    if afar.job is not None:
        time = "" if afar.job["seconds"] is None else f", {afar.job['seconds']:,.0f} s"
        show(
            f"{afar.job['job']}: {afar.job['status']}{time}{'' if afar.job['out'] is None else ', ' + afar.job['out']}"
        )
        show("\n".join(f"  {line}" for line in afar.said))
    if afar.missing:
        show(f"no stages: {afar.missing}")
    if afar.stages:
        show(render(afar.stages))


@app.command()
def report(run_folder: Annotated[str, typer.Argument(help="A run's folder.")]) -> None:
    """Write `report.html` again from what a run left on disk, and print its table."""
    from ..runs.results import write_report

    show(write_report(run_folder))


@app.command("show")
def show_command(
    run_folder: Annotated[str, typer.Argument(help="A run's folder.")],
    sample_id: Annotated[str, typer.Argument(help="The id of a record of its pool, as report and picks have it.")],
    as_json: AsJson = False,
) -> None:
    """One record of a run: its conversation, every selector's score and rank of it, and which choices took it."""
    from ..report.explorer.one import record_of, rendered

    record = record_of(run_folder, sample_id)
    show_json(record) if as_json else show(rendered(record))


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Output folder.")] = "runs/demo",
    recipe: Annotated[
        str, typer.Option(help="What runs on its data: demo, demo-sweep, or a YAML like theirs.")
    ] = "demo",
    gpus: Gpus = "auto",
    sets: Sets = None,
) -> None:
    """The main job on real embedded data (easy-VQA), in minutes; then open `runs/demo/report.html`."""
    from ..demo.run import run_demo

    run_demo(out, sets or [], gpus, recipe)
