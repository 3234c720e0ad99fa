"""What evaluations are worth: `compare`, and `power` before there are any."""

from typing import Annotated

import typer

from ..progress import show, show_json
from .app import AsJson, app


@app.command()
def compare(
    evaluations: Annotated[
        list[str],
        typer.Argument(
            help="Folders that `vinnow evaluate` made, or their tables, or folders with one per benchmark; seeds by commas."
        ),
    ],
    full: Annotated[
        str | None, typer.Option(help="The full-data model's evaluation: scores in per cent of its.")
    ] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="A test pool, for tables that do not know their pictures (repeatable).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap and of random signs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Hold evaluations of one test pool against the first of them, question by question: difference, interval, p.

    Questions about one picture are drawn together; p is adjusted for the number of rows (Holm); a verdict takes both.

    Example: `vinnow compare evals/random-s0,evals/random-s1 evals/less-s0,evals/less-s1 --full evals/full`
    """
    from ..comparing import compared, render

    rows = compared(evaluations, seed, full, pool or [])
    if as_json:
        show_json(rows)
    else:
        show(render(rows))


@app.command()
def power(
    evaluations: Annotated[
        list[str] | None,
        typer.Argument(help="Two finished evaluations to estimate from (seeds by commas); else give --disagree."),
    ] = None,
    difference: Annotated[
        list[float] | None,
        typer.Option(help="The difference to see, in points (repeatable).", show_default="1, 2, 3, 5"),
    ] = None,
    disagree: Annotated[
        float | None, typer.Option(help="Questions on which just one of the two models is right, in per cent.")
    ] = None,
    per_picture: Annotated[float | None, typer.Option(help="Questions about one picture.", show_default="1")] = None,
    correlation: Annotated[
        float | None, typer.Option(help="How alike the differences of one picture are, 0 to 1.", show_default="0")
    ] = None,
    seed_spread: Annotated[
        float | None, typer.Option(help="Standard deviation of a training's score over seeds, in points.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option(help="Seeds per side (repeatable).", show_default="1, 3, 5")
    ] = None,
    comparisons: Annotated[int, typer.Option(help="Comparisons in the table (Holm).")] = 1,
    alpha: Annotated[float, typer.Option(help="The chance of a false finding.")] = 0.05,
    wanted: Annotated[float, typer.Option("--power", help="The chance to see a difference that is there.")] = 0.8,
    pool: Annotated[
        list[str] | None, typer.Option(help="A test pool, for tables that do not know their pictures (repeatable).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how many questions, pictures and training seeds a difference between two choices takes to be seen.

    From assumed rates, or from two finished evaluations; what else is given takes the place of their estimate.

    Example: `vinnow power --disagree 12 --per-picture 18 --correlation 0.1 --difference 1`
    """
    from ...evaluate.statistics.power import Aim
    from ..powering import Asked, plan, render

    assumptions = {
        "disagree": disagree,
        "per_picture": per_picture,
        "correlation": correlation,
        "seed_spread": seed_spread,
    }
    asked = Asked(tuple(difference or (1, 2, 3, 5)), tuple(seeds or (1, 3, 5)), Aim(alpha, wanted, comparisons))
    planned = plan(evaluations or [], assumptions, asked, pool or [])
    if as_json:
        show_json(planned)
    else:
        show(render(planned))
