"""What a board shows of running work: one list of panels over the meters of `store/meters.py` and a few of Ray's own."""

from dataclasses import dataclass
from typing import Literal

from ...store import meters
from ...store.meters import Meter

# what Grafana fills in: the Ray sessions that were chosen, the window of a rate, and the range that is looked at
SESSION = 'SessionName=~"$SessionName"'
WINDOW, RANGE = "$__rate_interval", "$__range"


@dataclass(frozen=True)
class Query:
    """A query in PromQL, and what its lines are called (`{{label}}`)."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One picture. `unit`: Grafana's name of it. `stacked`: parts of a whole. `needs`: what it is of, if any."""

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    stacked: bool = False
    needs: Literal["", "gpu"] = ""


@dataclass(frozen=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


def _of(meter: Meter, *more: str) -> str:
    return f"{meter.exported}{{{', '.join((*more, SESSION))}}}"


def _rate(meter: Meter, by: str, *more: str) -> str:
    return f"sum by ({by}) (rate({_of(meter, *more)}[{WINDOW}]))"


def _whole(meter: Meter, by: str) -> str:
    """Return a counter's value, also of processes that have ended in the range that is looked at."""
    return f"sum by ({by}) (max_over_time({_of(meter)}[{RANGE}]))"


def _node(what: str, by: str) -> str:
    """Return one of Ray's own measurements of nodes."""
    return f"avg by ({by}) (ray_node_{what}_utilization{{{SESSION}}})"


_SECONDS = _rate(meters.ACTOR_SECONDS, "flow")
_BUSY = _rate(meters.ACTOR_SECONDS, "flow", 'doing="computing"') + f" / {_SECONDS}"
_FEATURES = Row(
    "Features and answers",
    (
        Panel(
            "Rows",
            "Rows of features a second, a row at each checkpoint.",
            "rowsps",
            (Query(_rate(meters.FEATURE_ROWS, "kind"), "{{kind}}"),),
        ),
        Panel(
            "Tokens",
            "Tokens that feature actors compute a second, pads among them.",
            "short",
            (Query(_rate(meters.FEATURE_TOKENS, "kind"), "{{kind}}"),),
        ),
        Panel(
            "Actors at work",
            "The share of their time that actors compute, by their own clocks; the rest is in the next panel.",
            "percentunit",
            (Query(_BUSY, "{{flow}}"),),
        ),
        Panel(
            "What actors do",
            "Seconds of all actors a second: how many of them load, wait, read, compute and write at a time.",
            "short",
            (Query(_rate(meters.ACTOR_SECONDS, "flow, doing"), "{{flow}} {{doing}}"),),
            stacked=True,
        ),
        Panel(
            "Parts",
            "Parts that are done and that wait; together, all parts of the flow under way.",
            "short",
            (Query(f"sum by (flow, state) ({_of(meters.PARTS)})", "{{flow}} {{state}}"),),
            stacked=True,
        ),
        Panel(
            "Refused rows",
            "Rows that could not be used, by stage and reason, in the time that is shown; features: at each checkpoint.",
            "short",
            (Query(_whole(meters.REFUSED_ROWS, "stage, reason"), "{{stage}}: {{reason}}"),),
        ),
        Panel(
            "GPUs at work",
            "What Ray measures of the GPUs themselves.",
            "percent",
            (
                Query(
                    _node("gpus", "ip, GpuIndex"),
                    "{{ip}} {{GpuIndex}}",
                ),
            ),
            needs="gpu",
        ),
        Panel(
            "CPUs at work",
            "What Ray measures of the nodes.",
            "percent",
            (Query(_node("cpu", "ip"), "{{ip}}"),),
        ),
    ),
)
_TRAINING = Row(
    "Training",
    (
        Panel(
            "Loss",
            "Of the last step in nats a token, and of held-out rows; a line for each process that trains. A trial's own "
            "curve is in TensorBoard.",
            "short",
            (
                Query(f"max by (training, WorkerId) ({_of(meters.TRAIN_LOSS)})", "{{training}}"),
                Query(f"max by (training, WorkerId) ({_of(meters.VALIDATION_LOSS)})", "{{training}}, held out"),
            ),
        ),
        Panel(
            "Learning rate",
            "Of the last step.",
            "sci",
            (Query(f"max by (training, WorkerId) ({_of(meters.LEARNING_RATE)})", "{{training}}"),),
        ),
        Panel(
            "Steps done",
            "The share of its planned steps that a training has done.",
            "percentunit",
            (
                Query(
                    f"max by (training, WorkerId) ({_of(meters.TRAIN_STEP)}) / "
                    f"max by (training, WorkerId) ({_of(meters.TRAIN_PLANNED)})",
                    "{{training}}",
                ),
            ),
        ),
        Panel(
            "Steps and rows",
            "Optimizer steps a second, and rows.",
            "short",
            (
                Query(_rate(meters.TRAIN_STEPS, "training"), "{{training}}: steps"),
                Query(_rate(meters.TRAIN_ROWS, "training"), "{{training}}: rows"),
            ),
        ),
        Panel(
            "Tokens trained on",
            "Tokens a second.",
            "short",
            (Query(_rate(meters.TRAIN_TOKENS, "training"), "{{training}}"),),
        ),
    ),
)
_CHOICE = "selector, budget, seed, variant"
_SWEEP = Row(
    "Sweep",
    (
        Panel(
            "Trials",
            "Trials of the sweep that are done, running, waiting and failed.",
            "short",
            (Query(f"sum by (state) ({_of(meters.TRIALS)})", "{{state}}"),),
            kind="stat",
        ),
        Panel(
            "Trials over time",
            "The same, as it went.",
            "short",
            (Query(f"sum by (state) ({_of(meters.TRIALS)})", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Accuracy by choice",
            "Mean over the seeds that are done. Whether a difference is one, the report says.",
            "percentunit",
            (
                Query(
                    f"avg by (selector, budget, variant) ({_of(meters.ACCURACY)})",
                    "{{selector}} {{budget}} {{variant}}",
                ),
            ),
        ),
        Panel(
            "Accuracy by seed",
            "A line for each trial that is done; of sweeps with more than 200 trials, seeds are one mean.",
            "percentunit",
            (Query(f"max by ({_CHOICE}) ({_of(meters.ACCURACY)})", "{{selector}} {{budget}} {{variant}} s{{seed}}"),),
        ),
        Panel(
            "Questions",
            "Questions answered a second.",
            "short",
            (Query(_rate(meters.QUESTIONS, "benchmark"), "{{benchmark}}"),),
        ),
    ),
)
ROWS = (_FEATURES, _TRAINING, _SWEEP)


def filled(expr: str, session: str = ".*", window: str = "1m", within: str = "1h") -> str:
    """Return a panel's query as Grafana would send it, with what it fills in."""
    return expr.replace("$SessionName", session).replace(WINDOW, window).replace(RANGE, within)
