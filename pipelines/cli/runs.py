"""Whole runs: `plan`, `run`, `sweep`, `status`, `report`, `demo`."""

from dataclasses import asdict
from typing import Annotated

import typer

from ..progress import show, show_json
from .app import AsJson, RunFile, Sets, app


@app.command()
def plan(run: RunFile, as_json: AsJson = False, sets: Sets = None) -> None:
    """Dry run: what would run, on what, how many rows, bytes and steps, at what price; and the resolved config."""
    from ..config import load_run
    from ..plan import make_plan
    from ..plan_shown import plan_json, print_plan

    config = load_run(run, sets)
    made = make_plan(config)
    if as_json:
        show_json(plan_json(config, made))
    else:
        print_plan(config, made)


@app.command("run")
def run_command(run: RunFile, sets: Sets = None) -> None:
    """All stages of a run, from the pool to the report; done stages are skipped."""
    from ..config import load_run
    from ..whole import whole_run

    whole_run(load_run(run, sets))


@app.command()
def sweep(run: RunFile, sets: Sets = None) -> None:
    """Fine-tune and evaluate every choice of a run (its earlier stages run first if they have not)."""
    from ..config import load_run
    from ..whole import whole_run

    whole_run(load_run(run, sets), report=False)


@app.command()
def status(
    run_folder: Annotated[str, typer.Argument(help="A run's folder.")],
    as_json: AsJson = False,
) -> None:
    """Every stage of a run: done, under way or waiting, with rows, refused rows, seconds and bytes."""
    from ..status import render
    from ..status import status as work

    found = work(run_folder)
    if as_json:
        show_json([asdict(stage) for stage in found])
    else:
        show(render(found))


@app.command()
def report(run_folder: Annotated[str, typer.Argument(help="A run's folder.")]) -> None:
    """Write `report.html` again from what a run left on disk, and print its table."""
    from ..results import write_report

    show(write_report(run_folder))


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Output folder.")] = "runs/demo",
    gpus: Annotated[str, typer.Option(help="auto (one GPU where there is one), 0 (the CPU) or 1.")] = "auto",
    sets: Sets = None,
) -> None:
    """The main job on real embedded data (easy-VQA), in minutes; then open `runs/demo/report.html`."""
    from ..demo.run import run_demo

    run_demo(out, sets or [], gpus)
