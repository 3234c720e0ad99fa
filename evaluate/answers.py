"""The answering actor: a plain class that turns shards of a test pool into shards of the EVALS table, greedily.

It runs inline in a test, on local Ray, and on a GPU alike: `shards.py` hands it to the flow. Axes: B rows, T prompt tokens
(padded on the left), I pictures.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..models.load import load
from ..pool.batching import token_batches
from ..pool.decode import Decoder, Refusal, attempt, refusal
from ..pool.encode import Encoded
from ..pool.records import Record
from ..pool.refusals import RefusedError
from ..store.errors import InputError
from ..store.meters import QUESTIONS
from .answering import Answerer
from .config import EvalSpec
from .generator import Generator
from .sampling import Sampling

_OVERFLOW = "the model's logits became NaN or infinite: its weights, or this precision, cannot answer the row"


def loaded_generator(spec: EvalSpec) -> Generator:
    """Load an evaluation's checkpoint.

    Raises:
        InputError: it is none, or another one than when the evaluation began.
    """
    config = spec.config
    torch.set_num_threads(config.threads)
    loaded = load(config.model, config.precision, spec.device)
    if loaded.digest != spec.key["model"]:
        raise InputError(f"{config.model}: its weights changed while the evaluation was under way.")
    return Generator(loaded, config)


class AnswerActor(Answerer):
    """`__init__` loads the checkpoint, unless it is given one that is; see `Answerer`.

    Another measurement of answers is a subclass: what is asked, what is kept of a batch, and its rows.
    """

    def __init__(self, spec: EvalSpec, generator: Generator | None = None) -> None:
        super().__init__(spec)
        config = spec.config
        self.generator = generator or loaded_generator(spec)
        self.sampling = Sampling(max_new_tokens=config.max_new_tokens)
        encoder = self.generator.encoder
        self.decoder = Decoder(encoder, config.image_root or self.pool.image_root, config.threads)
        self.watch.spent("loading")
        QUESTIONS.begin(benchmark=config.benchmark)

    def answers(self, records: list[Record]) -> tuple[dict[int, Any], list[Refusal]]:
        """Return the answers by row, and the refusals; see `Answerer.answers`."""
        asked = [attempt(self.prompt, record) for record in records]
        refused = [row for row in asked if isinstance(row, Refusal)]
        prompts = {i: row for i, row in enumerate(asked) if not isinstance(row, Refusal)}
        return self._answer_all(prompts, records, refused), refused

    def prompt(self, record: Record) -> Encoded:
        """Return what is asked of a record.

        Raises:
            RefusedError, EncodeError: the record cannot be asked or scored; it is refused with the error's `reason`.
        """
        question = self.question(record)
        return self.generator.encoder.prompt(question, sizes=self.decoder.sizes(question))

    def answer(self, prompts: Sequence[Encoded]) -> list[Any]:
        """Return the greedy answers to B prompts, which carry their pictures.

        A subclass may give something else for a row, which `table` reads, or a `RefusedError`, which is listed.
        """
        replies = self.generator.reply(prompts, [self.sampling] * len(prompts))
        return [r.text if r.finite else RefusedError("not_finite", _OVERFLOW) for r in replies]

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
            self.watch.spent("reading")
            replies = self.answer(list(sound.values())) if sound else []
            self.watch.spent("computing")
            QUESTIONS.add(len(replies), benchmark=config.benchmark)
            for i, reply in zip(sound, replies, strict=True):
                if isinstance(reply, RefusedError):
                    refused.append(refusal(records[i], reply))
                else:
                    answers[i] = reply
        return answers
