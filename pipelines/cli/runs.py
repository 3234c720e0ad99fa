"""Whole runs: `plan`, `run`, `sweep`, `status`, `report`, `demo`."""

from typing import Annotated

import typer

from ..progress import console
from .app import RunFile, Sets, app


@app.command()
def plan(run: RunFile, sets: Sets = None) -> None:
    """Dry run: what would run, on what, how many rows, bytes and steps, at what price; and the resolved config."""
    from ..config import load_run
    from ..plan import make_plan, print_plan

    print_plan(make_plan(load_run(run, sets)))


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Every stage of a run: done, under way or waiting, with rows, refused rows, seconds and bytes."""
    from ..status import as_json as plain
    from ..status import render
    from ..status import status as work

    found = work(run_folder)
    if as_json:
        typer.echo(plain(found))
    else:
        console.print(render(found))


@app.command()
def report(run_folder: Annotated[str, typer.Argument(help="A run's folder.")]) -> None:
    """Write `report.html` again from what a run left on disk, and print its table."""
    from ..results import write_report

    console.print(write_report(run_folder))


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Output folder.")] = "runs/demo",
    gpus: Annotated[str, typer.Option(help="auto (one GPU where there is one), 0 (the CPU) or 1.")] = "auto",
    sets: Sets = None,
) -> None:
    """The main job on real embedded data (easy-VQA), in minutes; then open `runs/demo/report.html`."""
    from ..demo.run import run_demo

    run_demo(out, sets or [], gpus)
