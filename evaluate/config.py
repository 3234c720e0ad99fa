"""What an evaluation is: which checkpoint answers which test pool, and how answers are scored."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator

from ..pool.inputs import InputConfig
from ..store.config import Config
from ..store.errors import suggest
from ..store.usage import MAX_REFUSED
from . import registry

# no score: what a model attends to while it answers (`imbalance.py`)
IMBALANCE = "imbalance"
# no score until a judge gives one: answers to open questions (`open_answers.py`)
OPEN = "open"


# the answers and scores of an evaluation, in its folder
TABLE = "evals.parquet"
# what was found, beside it
REPORT = "evals.json"


def known_benchmark(name: str) -> str:
    """Return the name of a benchmark that scores. Raises: ValueError: it is none; names the nearest one."""
    if name == IMBALANCE:
        raise ValueError(f"{name} gives no scores to compare; measure it with `vinnow evaluate --benchmark {name}`")
    if name == OPEN:
        raise ValueError(f"{name} answers have no scores until `vinnow judge` has read them")
    if name not in (known := registry.names()):
        raise ValueError(f"unknown benchmark {name!r}{suggest(name, [*known, IMBALANCE, OPEN])}")
    return name


def is_open(name: str) -> str:
    """Return the name of the benchmark that scores nothing. Raises: ValueError: it is another one."""
    if name != OPEN:
        raise ValueError(f"the benchmark is {OPEN!r} here, not {name!r}; scores are an EvalConfig's")
    return name


class QuestionsConfig(Config):
    """What is asked and how it is scored, whoever answers: a checkpoint, or an endpoint (`remote/evaluation.py`)."""

    image_root: str | None = Field(
        None, description="Where the test pool's pictures lie now, if not where ingest found them."
    )
    benchmark: str = Field(
        "exact_match", description="How answers are read and scored: a name of `evaluate/benchmarks/`."
    )
    rows_per_part: int = Field(
        256, ge=1, description="Rows of a part: what is done again at most if the evaluation is cut off."
    )
    max_refused: float = Field(
        MAX_REFUSED, ge=0, le=1, description="The share of rows that may turn out unusable before the evaluation fails."
    )

    @field_validator("benchmark")
    @classmethod
    def _known_benchmark(cls, name: str) -> str:
        return known_benchmark(name)


class EvalRecipe(QuestionsConfig, InputConfig):
    """How a model is asked and its answers are scored, whatever model on whatever questions; answers are greedy.

    The fields from `token_budget` on change the speed, never the answers.
    """

    max_new_tokens: int = Field(8, ge=1, description="The longest answer, in tokens.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="What the model computes in.")
    token_budget: int = Field(
        16_384, ge=1, description="The size of a batch: rows × (longest prompt + `max_new_tokens`)."
    )
    max_rows: int = Field(64, ge=1, description="The most rows of a batch.")
    actors: int = Field(1, ge=1, description="Processes that answer.")
    cpus_per_actor: float = Field(1, ge=0, description="CPUs of each.")
    gpus_per_actor: float = Field(0, ge=0, description="GPUs of each.")
    threads: int = Field(1, ge=1, description="Torch threads of an actor, and the threads that decode its pictures.")


# what makes a job of a recipe
JOB = ("model", "pool", "run")


class EvalConfig(EvalRecipe):
    """One checkpoint on one test pool: one evaluation."""

    model: str = Field(description="The checkpoint that answers.")
    pool: str = Field(description="The POOL folder of the questions.")
    run: str = Field(description="The digest that EVALS rows carry: of picks, resolved config and code revision.")


class ImbalanceConfig(EvalConfig):
    """The same for the modality imbalance: the first question of each row with a picture, asked as it stands."""

    benchmark: str = Field(IMBALANCE, description="Always imbalance.")

    @field_validator("benchmark")
    @classmethod
    def _known_benchmark(cls, name: str) -> str:
        if name != IMBALANCE:
            raise ValueError(f"the benchmark is {IMBALANCE!r} here, not {name!r}; scores are an EvalConfig's")
        return name


class OpenConfig(EvalConfig):
    """The same for open questions: the first question of each row, asked as it stands; nothing is scored."""

    benchmark: str = Field(OPEN, description="Always open.")
    max_new_tokens: int = Field(1024, ge=1, description="The longest answer, in tokens.")

    @field_validator("benchmark")
    @classmethod
    def _known_benchmark(cls, name: str) -> str:
        return is_open(name)


# what answers and scores depend on, beside the digests of model and pool
MATTERS = ("run", "benchmark", "template", "image_mode", "pictures", "max_len", "max_new_tokens", "precision")


@dataclass(frozen=True)
class EvalSpec:
    """All that an actor is told: plain values, so that it travels to any worker.

    `key` says what the answers were made of; it stands in the footer of every shard. `here`: one actor, in this process.
    """

    config: EvalConfig
    out: str
    key: dict[str, str]
    device: str = "cpu"
    here: bool = False

    @property
    def inputs(self) -> list[str]:
        """What is read: no output may lie around it."""
        return [self.config.model, self.config.pool]


@dataclass
class ShardsReport:
    """What every evaluation by shards tells. `path`: its table.

    `refused` rows (a missing picture, a prompt that is too long) are listed with reasons under `out/refused`, and counted
    by `reasons`. `parts`, `skipped_parts` and `seconds` tell of this call.
    """

    path: str
    rows: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    rows_by_task: dict[str, int] = field(default_factory=dict)
    parts: int = 0
    skipped_parts: int = 0
    seconds: float = 0.0
    key: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvalReport(ShardsReport):
    """What an evaluation found, in the EVALS table; `accuracy` counts rows, `by_task` its tasks.

    Refused rows are in the table as wrong answers and count in every share. `image_accuracy`: over the `image_rows` with a
    picture, which is the number that LLaVA's papers give for ScienceQA; None without such rows. `metrics`: the benchmark's
    own figures, as the fields of `benchmark.Metrics`.
    """

    accuracy: float = 0.0
    image_accuracy: float | None = None
    image_rows: int = 0
    by_task: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
