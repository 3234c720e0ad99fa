"""What a report shows: plain tables and arrays, filled by `gather.py` or by hand. Every part may be absent.

Axes: N rows, C clusters, T checkpoints.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ...evaluate.metrics import Majority
from ...select.diagnostics import Diagnosis
from ...select.protocol import ScoreMeans
from ...store.arrays import Array
from ..runs.stage import Held
from .costs import FULL as FULL
from .costs import RANDOM as RANDOM
from .costs import Costs
from .explorer.gathering import Explored


@dataclass(frozen=True)
class Trial:
    """One fine-tune: what was chosen, how long it trained, and its answers (EVALS rows of this run alone).

    `variant`: which of several fine-tunes of the same choice; "" where there is one.
    """

    selector: str
    budget: str
    seed: int
    rows: int
    train_seconds: float
    evals: pa.Table
    variant: str = ""
    # the accuracy on questions with a picture, where others have none
    pictured: float | None = None
    # the trial whose training this is: another one's, where both are of the same rows; "" where that is not known
    trained_as: str = ""


@dataclass(frozen=True)
class Picked:
    """How many rows of each task a selector took."""

    selector: str
    budget: str
    by_task: dict[str, int]


@dataclass(frozen=True)
class Composition:
    """Rows by the values of one field of the records, commonest first: in the pool, and in each choice by its name."""

    field: str
    pool: dict[str, int]
    choices: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Trajectories:
    """Attention trajectories by cluster: quartiles [C, T] at `steps` [T]; `sizes`, `picked`, `sources` [C] in rows.

    `picked` by budget, `sources` by the name of the data set that rows come from.
    """

    steps: list[int]
    median_CT: Array
    low_CT: Array
    high_CT: Array
    sizes: Array
    picked: dict[str, Array] = field(default_factory=dict)
    sources: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Similarity:
    """A selector's score of every row [N] and the lowest score that each budget took."""

    selector: str
    scores_N: Array
    thresholds: dict[str, float]


@dataclass(frozen=True)
class Shown:
    """A record in the gallery. `image`, its first one, counts from `image_root`; None is a text-only record."""

    turns: list[dict[str, str]]
    task: str
    score: float
    image: str | None = None
    image_root: str | None = None


@dataclass(frozen=True)
class Gallery:
    """What a selector took first and what it passed over last, at one budget.

    `means`: how its scores are to be read; "worth" has `picked` by score, the best first, the others as they were picked.
    `text_left_out`: of a pool with rows of both kinds, those with a picture are shown.
    """

    selector: str
    budget: str
    picked: list[Shown]
    passed: list[Shown]
    means: ScoreMeans = "order"
    text_left_out: bool = False


@dataclass(frozen=True)
class Stage:
    """A stage's wall-clock seconds, and rows, bytes and what it held of devices where it has them.

    `seconds`: of all its `starts` that ended well, together; `last`: of the last one, None where that is not known.
    `ran`: where it took gradients, rows by what ran their decoder.
    """

    name: str
    seconds: float
    rows: int | None = None
    size: int | None = None
    held: Held | None = None
    starts: int = 1
    last: float | None = None
    ran: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """A run's resolved config, and shell commands by what they do."""

    config: dict[str, Any]
    commands: dict[str, str]


@dataclass
class ReportData:
    """A whole report. `absent` may say, by section, why it is missing; `facts` stand under the title.

    By selector: `notes` say what one should know of its scores (rows without a gradient), `diagnoses` count.
    """

    title: str = "vinnow"
    facts: dict[str, str] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    majority: Majority | None = None
    pool_tasks: dict[str, int] = field(default_factory=dict)
    picked: list[Picked] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    diagnoses: dict[str, Diagnosis] = field(default_factory=dict)
    composition: list[Composition] = field(default_factory=list)
    trajectories: Trajectories | None = None
    similarity: list[Similarity] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    # of the sweep: trials that are others again, failed, were dropped or not run
    sweep: list[str] = field(default_factory=list)
    refused: dict[str, pa.Table] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    about: About | None = None
    costs: Costs | None = None
    # what each choice shares with others and takes of the pool, and records to look at
    explored: Explored | None = None
    # in sentences, what the run says of its question
    answer: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
