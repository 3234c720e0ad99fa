"""`vinnow power`: what a difference takes to be seen, from assumed rates or from two finished evaluations."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

from ..evaluate.statistics.power import Aim, Assumed, Estimated, Needed, estimate, needed, seen
from ..pool.reader import Pool
from ..store.errors import InputError
from .comparing import read_choice

# what stands in points, or in per cent, on the command line
_PERCENT = ("disagree", "seed_spread")


@dataclass(frozen=True)
class Asked:
    """The differences in points, the seeds per side, and the test that is to see them."""

    differences: tuple[float, ...]
    seeds: tuple[int, ...]
    aim: Aim


def plan(
    evaluations: Sequence[str], assumptions: dict[str, float | None], asked: Asked, pools: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what is assumed, what the evaluations at hand see (if any), and one row per difference and seeds.

    `assumptions` (fields of `Assumed`; in per cent what is a share there) take the place of what is estimated.

    Raises:
        InputError: neither two evaluations nor `disagree`, or both; a correlation that has no say; an assumption is out of
            range; a difference beyond what differs.
    """
    known = {n: v / 100 if n in _PERCENT else v for n, v in assumptions.items() if v is not None}
    estimated = _estimated(evaluations, pools) if evaluations else None
    if estimated is None and "disagree" not in known:
        raise InputError(
            "power needs to know how often two models differ: give --disagree (per cent), or two finished evaluations of "
            "one test pool."
        )
    if estimated is not None and "disagree" in known:
        share = 100 * estimated.assumed.disagree
        raise InputError(
            f"--disagree {100 * known['disagree']:g} is at odds with the two evaluations, which differ on {share:.3g} % of "
            "the questions: give one or the other."
        )
    before = {} if estimated is None else asdict(estimated.assumed)
    assumed = Assumed(**(before | known))
    if known.get("correlation") and "per_picture" not in known and assumed.per_picture == 1:
        raise InputError(
            "--correlation is that of questions about one picture, and each picture has one: give --per-picture, too."
        )
    rows = [needed(assumed, d / 100, s, asked.aim) for d in asked.differences for s in dict.fromkeys(asked.seeds)]
    return {
        "assumed": asdict(assumed)
        | {
            "design_effect": assumed.design_effect,
            "estimated": sorted(before.keys() - known),
            "replaced": {n: before[n] for n in known if before.get(n) is not None},
        },
        "aim": asdict(asked.aim),
        "at_hand": None if estimated is None else _at_hand(estimated, assumed, asked.aim),
        "rows": [_row(row) for row in rows],
    }


def render(planned: dict[str, Any]) -> Group:
    """Return a plan as a table for the terminal, below what it rests on."""
    assumed, aim = planned["assumed"], planned["aim"]
    spread = assumed["seed_spread"]
    lines = [
        f"Two models differ on {100 * assumed['disagree']:.3g} % of the questions; {assumed['per_picture']:.3g} questions "
        f"per picture, correlation {assumed['correlation']:.3g}: a design effect of {assumed['design_effect']:.3g}.",
        "The spread over training seeds is not known and not counted: give --seed-spread, or evaluations of several seeds."
        if spread is None
        else f"Spread over training seeds: {100 * spread:.3g} points.",
    ]
    if assumed["replaced"]:
        measured = ", ".join(
            f"{n.replace('_', ' ')} ({v * (100 if n in _PERCENT else 1):.3g})" for n, v in assumed["replaced"].items()
        )
        lines.append(f"Given in place of what the evaluations show: {measured}.")
    if (hand := planned["at_hand"]) is not None:
        sees = "nothing" if hand["sees"] is None else f"{100 * hand['sees']:.2g} points"
        lines.append(
            f"The {hand['questions']:,} questions about {hand['pictures']:,} pictures at hand, with {hand['seeds']} "
            f"seeds per side, see {sees}."
        )
        if hand["unknown"]:
            lines.append(f"Of {hand['unknown']:,} questions the picture is not known; --pool TEST says which it is.")
    shared = f" among {aim['comparisons']} comparisons" if aim["comparisons"] > 1 else ""
    table = Table(
        title=f"To see a difference with power {aim['power']:g} at {aim['alpha']:g}{shared}", title_justify="left"
    )
    for name in ("points", "seeds per side", "questions", "pictures"):
        table.add_column(name, justify="right")
    for row in planned["rows"]:
        cells = (f"{row['questions']:,}", f"{row['pictures']:,}") if row["questions"] else ("never", _never(row))
        table.add_row(f"{100 * row['difference']:g}", str(row["seeds"]), *cells)
    return Group(*lines, table)


def _never(row: dict[str, Any]) -> str:
    return f"seeds hide it: {row['least_seeds']} or more"


def _row(row: Needed) -> dict[str, Any]:
    return asdict(row)


def _estimated(evaluations: Sequence[str], pools: Sequence[str]) -> Estimated:
    if len(evaluations) != 2:
        raise InputError(
            f"power estimates from two evaluations, not {len(evaluations)}; seeds of one are joined by commas."
        )
    first, second = (read_choice(name, [Pool(path) for path in pools]) for name in evaluations)
    if len(first.tables) > 1 or first.tables.keys() != second.tables.keys():
        raise InputError("power estimates from one benchmark: name the evaluations, not the folders that hold them.")
    ((benchmark, tables),) = first.tables.items()
    return estimate(tables, second.tables[benchmark])


def _at_hand(estimated: Estimated, assumed: Assumed, aim: Aim) -> dict[str, Any]:
    sizes = {"questions": estimated.questions, "pictures": estimated.pictures, "seeds": min(estimated.seeds)}
    return sizes | {"unknown": estimated.unknown, "sees": seen(assumed, estimated.pictures, min(estimated.seeds), aim)}
