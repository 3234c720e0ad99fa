"""An endpoint and a test pool → EVALS: the questions of `run.evaluate`, asked over HTTP instead of a loaded checkpoint.

Questions go without a chat template, which is the endpoint's own to put around them. A part is written when all of it is
answered, and each answer is in `OUT/asked.sqlite` before that: what was paid for is not asked again, whatever is killed.
"""

import json
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from ...pool.decode import ROW_ERRORS, Refusal, refusal
from ...pool.reader import Pool
from ...pool.records import Record
from ...pool.shown import Pictures
from ...store.files import exists, join
from ...store.reading import as_kind
from ..answering import Answerer
from ..config import OPEN, REPORT, TABLE, EvalReport, EvalSpec, QuestionsConfig, ShardsReport, is_open
from ..open_answers import OpenAnswers, finish
from ..run import summary
from ..shards import Measurement, Progress, carry_out
from .asking import ask, in_threads, text_of
from .cache import Cache
from .client import Client
from .config import EndpointConfig, RemoteSampling
from .pictures import data_uri
from .reply import Message, Question

CACHE = "asked.sqlite"
# what answers and scores depend on, beside the endpoint's model and the pool's digest
_MATTERS = ("benchmark", "max_new_tokens", "pictures")


class RemoteEvalConfig(QuestionsConfig):
    """One endpoint on one test pool: one evaluation, greedy (temperature 0)."""

    endpoint: EndpointConfig = Field(description="Who is asked.")
    pool: str = Field(description="The POOL folder of the questions.")
    max_new_tokens: int = Field(8, ge=1, description="The longest answer, in tokens; a longer one is scored as cut.")
    pictures: Pictures = Field(
        "white",
        description="How a file becomes RGB that decoders read otherwise (by EXIF, transparent, 16 bits, no JPEG, PNG or "
        "WebP); others are sent as they are.",
    )

    # threads of this process ask
    actors: ClassVar[int] = 1
    cpus_per_actor: ClassVar[float] = 0
    gpus_per_actor: ClassVar[float] = 0

    @property
    def run(self) -> str:
        """What EVALS rows say of who answered."""
        return f"openai:{self.endpoint.model}"


class RemoteOpenConfig(RemoteEvalConfig):
    """The same for open questions: the first question of each row, asked as it stands; nothing is scored."""

    benchmark: str = Field(OPEN, description="Always open.")
    max_new_tokens: int = Field(1024, ge=1, description="The longest answer, in tokens; a longer one is taken as cut.")

    @field_validator("benchmark")
    @classmethod
    def _known_benchmark(cls, name: str) -> str:
        return is_open(name)


@dataclass(frozen=True)
class RemoteSpec(EvalSpec):
    """An evaluation by an endpoint, in this process: threads ask, no actors."""

    config: RemoteEvalConfig  # type: ignore[assignment]
    here: bool = field(default=True, init=False)

    @property
    def inputs(self) -> list[str]:
        """What is read: no output may lie around it."""
        return [self.config.pool]


@dataclass
class RemoteReport(EvalReport):
    """An `EvalReport`, and what all answers of the folder have cost, in the endpoint's money.

    `under_way`: requests that were under way at kills; they count as paid, and may have been paid twice.
    """

    cost: float = 0.0
    under_way: int = 0


class RemoteAnswerer(Answerer):
    """Asks one endpoint, as many rows at a time as its config allows."""

    def __init__(self, spec: RemoteSpec) -> None:
        super().__init__(spec)
        self.config = spec.config
        self.root = self.config.image_root or self.pool.image_root
        cache = Cache(join(spec.out, CACHE))
        cache.take_over()
        self.client = Client(self.config.endpoint, cache)
        self.sampling = RemoteSampling(max_tokens=self.config.max_new_tokens, temperature=0)

    def answers(self, records: list[Record]) -> tuple[dict[int, Any], list[Refusal]]:
        """Return the answers by row, and the refusals; see `Answerer.answers`."""
        rows = in_threads(self._answer, records, self.config.endpoint.concurrency)
        texts = {i: row for i, row in enumerate(rows) if not isinstance(row, Refusal)}
        return texts, [row for row in rows if isinstance(row, Refusal)]

    def prompt(self, record: Record) -> list[Message]:
        """Return what is sent of a record: its own system prompt if it has one, and its question with its pictures.

        Raises:
            RefusedError, ImageError: it cannot be asked or scored, or a picture of it cannot be shown.
        """
        asked = self.question(record)
        images = [data_uri(self.root, i, record.seen(i), self.config.pictures) for i in asked.images]
        question = Question("user", asked.conversations[0]["value"], tuple(images))
        return [*([Message("system", asked.system)] if asked.system else []), question]

    def _answer(self, record: Record) -> str | Refusal:
        try:
            return text_of(ask(self.client, self.prompt(record), self.sampling))
        except ROW_ERRORS as error:
            return refusal(record, error)


class RemoteOpenAnswerer(OpenAnswers, RemoteAnswerer):
    """An endpoint answers open questions."""


def evaluate_remote(config: RemoteEvalConfig, out: str, progress: Progress | None = None) -> RemoteReport:
    """Ask what is not answered yet, write `OUT/evals.parquet` and return what was reached.

    Rows without an answer (refused by the endpoint, or no try brought one) are listed as any other refused row and count as
    wrong; a rerun asks those again that no try brought.

    Raises:
        KeyMismatchError: `out` holds answers of another model, pool or setting; lists what differs.
        EndpointError, DownError, BudgetError: the endpoint cannot be used, is down, or the cap of money is reached.
        InputError: no pool, an unknown benchmark, not one row could be asked, or more than `max_refused` were refused.
    """
    spec = _spec(config, out)
    fields = carry_out(spec, Measurement(RemoteAnswerer, TABLE, REPORT, _summary), progress)
    return as_kind(fields, RemoteReport, join(spec.out, REPORT), "report of an evaluation", "Delete it and run again.")


def answer_open_remote(config: RemoteOpenConfig, out: str, progress: Progress | None = None) -> ShardsReport:
    """Have an endpoint answer open questions: see `open_answers.answer_open`. Raises: as `evaluate_remote`."""
    return finish(_spec(config, out), RemoteOpenAnswerer, progress)


def _spec(config: RemoteEvalConfig, out: str) -> RemoteSpec:
    out = out if "://" in out else os.path.abspath(out)
    config = config.model_copy(update={"pool": config.pool if "://" in config.pool else os.path.abspath(config.pool)})
    key = {name: str(getattr(config, name)) for name in _MATTERS}
    # a model by the endpoint's name for it, not by where it is: it may move and answer as before
    key |= {"engine": "openai", "model": config.endpoint.model, "pool": Pool(config.pool).digest}
    key |= {"extra": json.dumps(config.endpoint.extra, sort_keys=True)}
    return RemoteSpec(config, out, key)


def _summary(evals: pa.Table, spec: RemoteSpec) -> dict[str, Any]:
    path, figures = join(spec.out, CACHE), summary(evals, spec)
    if not exists(path):
        return figures | {"cost": 0.0, "under_way": 0}
    cache = Cache(path)
    paid = {"cost": cache.spent(), "under_way": cache.killed()}
    cache.close()
    return figures | paid
