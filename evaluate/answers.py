"""The answering actor: a plain class that turns shards of a test pool into shards of the EVALS table, greedily.

It runs inline in a test, on local Ray, and on a GPU alike: `shards.py` hands it to the flow. The unit of work is
one shard, written whole or not at all. Axes: B rows, T prompt tokens (padded on the left), I pictures.
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from ..models.load import load
from ..pool.batching import token_batches
from ..pool.decode import Decoder, Refusal, attempt, refusal
from ..pool.encode import Encoded
from ..pool.reader import Pool
from ..pool.records import Record
from ..pool.refusals import RefusedError
from ..store.errors import InputError
from ..store.files import join
from ..store.refusals import write_refused
from ..store.tables import EVALS, write_rows
from . import registry
from .benchmark import fair_score, reference
from .clusters import cluster_of
from .config import EvalSpec
from .generator import Generator
from .sampling import Sampling

FOOTER = "vinnow.eval"
_OVERFLOW = "the model's logits became NaN or infinite: its weights, or this precision, cannot answer the row"


class AnswerActor:
    """`__init__` loads the checkpoint; `__call__` answers whole shards and writes them to `OUT/FOLDER`, as `SCHEMA`.

    Another measurement of answers is a subclass: what is asked, what is kept of a batch, and its rows.
    """

    FOLDER, SCHEMA = "answers", EVALS
    # a row that cannot be answered is a wrong answer, as in the official scripts
    REFUSED_COUNT = True

    def __init__(self, spec: EvalSpec) -> None:
        config = spec.config
        torch.set_num_threads(config.threads)
        self.spec = spec
        self.pool = Pool(config.pool)
        self.shards = {s.name: s for s in self.pool.shards(config.rows_per_part)}
        loaded = load(config.model, config.precision, spec.device)
        if loaded.digest != spec.key["model"]:
            raise InputError(f"{config.model}: its weights changed while the evaluation was under way.")
        self.generator = Generator(loaded, config)
        self.sampling = Sampling(max_new_tokens=config.max_new_tokens)
        encoder = self.generator.encoder
        self.decoder = Decoder(encoder, config.image_root or self.pool.image_root, config.threads)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Take {part}, its name; answer and write it, and return what was done."""
        return self.compute(part["part"])

    def compute(self, name: str) -> dict[str, Any]:
        """Answer one shard and write it; rows that cannot be asked are refused with a reason."""
        records = self.pool.read(self.shards[name])
        asked = [attempt(self.prompt, record) for record in records]
        refused = [row for row in asked if isinstance(row, Refusal)]
        prompts = {i: row for i, row in enumerate(asked) if not isinstance(row, Refusal)}
        answers = self._answer_all(prompts, records, refused)
        # the list of refusals goes first: the shard's own file says that all of it is done
        write_refused(self.spec.out, self.FOLDER, 0, name, refused)
        done = [records[i] for i in sorted(answers)]
        table = self.table(done, [answers[i] for i in sorted(answers)])
        table = table.replace_schema_metadata({FOOTER: json.dumps(self.spec.key, sort_keys=True)})
        write_rows(join(self.spec.out, self.FOLDER, f"{name}.parquet"), table, self.SCHEMA)
        return {"part": name, "rows": len(done), "refused": len(refused)}

    def prompt(self, record: Record) -> Encoded:
        """Return what is asked of a record.

        Raises:
            RefusedError, EncodeError: the record cannot be asked or scored; it is refused with the error's `reason`.
        """
        benchmark = registry.find(self.spec.config.benchmark)
        try:
            benchmark.check(record)
            question = benchmark.ask(record)
        except InputError as error:
            raise RefusedError(getattr(error, "reason", "not_encodable"), str(error)) from error
        return self.generator.encoder.prompt(question, sizes=self.decoder.sizes(question))

    def answer(self, prompts: Sequence[Encoded]) -> list[Any]:
        """Return the greedy answers to B prompts, which carry their pictures.

        A subclass may give something else for a row, which `table` reads, or a `RefusedError`, which is listed.
        """
        replies = self.generator.reply(prompts, [self.sampling] * len(prompts))
        return [r.text if r.finite else RefusedError("not_finite", _OVERFLOW) for r in replies]

    def table(self, records: list[Record], answers: list[Any]) -> pa.Table:
        """Return a shard's rows, of what `answer` gave."""
        name = self.spec.config.benchmark
        benchmark = registry.find(name)
        scores = [fair_score(benchmark, a, r) for a, r in zip(answers, records, strict=True)]
        return _evals(self.spec.config.run, name, records, answers, scores)

    @staticmethod
    def unanswered(spec: EvalSpec, records: list[Record]) -> pa.Table:
        """Return the rows of records that could not be asked: no answer, score 0."""
        config = spec.config
        return _evals(config.run, config.benchmark, records, [""] * len(records), [0.0] * len(records))

    def _answer_all(self, prompts: dict[int, Encoded], records: list[Record], refused: list[Refusal]) -> dict[int, Any]:
        """Return answers by row; rows that turn out unusable are added to `refused`."""
        config, rows = self.spec.config, list(prompts)
        lengths = [len(prompts[i].input_ids) + config.max_new_tokens for i in rows]
        batches = [[rows[i] for i in b] for b in token_batches(lengths, config.token_budget, config.max_rows)]
        decoded = self.decoder.batches([(records[i], prompts[i]) for i in batch] for batch in batches)
        answers: dict[int, Any] = {}
        for batch, ready in zip(batches, decoded, strict=True):
            refused += [row for row in ready if isinstance(row, Refusal)]
            sound = {i: row for i, row in zip(batch, ready, strict=True) if isinstance(row, Encoded)}
            replies = self.answer(list(sound.values())) if sound else []
            for i, reply in zip(sound, replies, strict=True):
                if isinstance(reply, RefusedError):
                    refused.append(refusal(records[i], reply))
                else:
                    answers[i] = reply
        return answers


def _evals(run: str, benchmark: str, records: list[Record], answers: list[str], scores: list[float]) -> pa.Table:
    columns = [
        [run] * len(records),
        [benchmark] * len(records),
        [r.task for r in records],
        [str(r.sample_id) for r in records],
        [s == 1.0 for s in scores],
        scores,
        answers,
        [reference(r) for r in records],
        [cluster_of(r) for r in records],
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, EVALS, strict=True)], schema=EVALS)
