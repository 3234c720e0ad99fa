"""The answering actor: a plain class that turns parts of a test pool into parts of the EVALS table, greedily.

It runs inline in a test, on local Ray, and on a GPU alike; `run.py` puts it on Ray Data. The unit of work is
one part, written whole or not at all. Axes: B rows, T prompt tokens (padded on the left), I pictures.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ..models.load import base_of, load
from ..pool.checks import ImageError, RefusedError
from ..pool.collate import collate, stack
from ..pool.encode import Encoded, Encoder
from ..pool.reader import Pool
from ..pool.records import Record
from ..store.errors import InputError
from ..store.files import join
from ..store.refusals import write_refused
from ..store.tables import EVALS, write_rows
from .benchmarks import BENCHMARKS, reference
from .config import EvalSpec

FOOTER = "vinnow.eval"
_OVERFLOW = "the model's logits became NaN or infinite: its weights, or this precision, cannot answer the row"
Refusal = tuple[int, str, str, str]
# the pictures of one row
Pictures = list[np.ndarray[Any, Any]]


class AnswerActor:
    """`__init__` loads the checkpoint; `__call__` answers whole parts and writes them to `OUT/FOLDER`, as `SCHEMA`.

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
        self.root = config.image_root or self.pool.image_root
        self.parts = {p.name: p for p in self.pool.shards(config.rows_per_part)}
        loaded = load(config.model, config.precision, spec.device)
        if loaded.digest != spec.key["model"]:
            raise InputError(f"{config.model}: its weights changed while the evaluation was under way.")
        self.model = loaded.model
        self.tokenizer = loaded.processor.tokenizer
        self.pad_id = int(self.tokenizer.pad_token_id or 0)
        self.encoder = Encoder(loaded.processor, config.template, config.max_len, config.image_mode, config.pictures)
        self._set_greedy()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take rows of (part); return one row of counts for each part."""
        rows = [self.compute(str(name)) for name in batch["part"]]
        return {k: np.array([r[k] for r in rows]) for k in rows[0]}

    def compute(self, name: str) -> dict[str, Any]:
        """Answer one part and write it; rows that cannot be asked are refused with a reason."""
        start = time.perf_counter()
        records = self.pool.read(self.parts[name])
        prompts: dict[int, Encoded] = {}
        refused: list[Refusal] = []
        for i, record in enumerate(records):
            try:
                prompts[i] = self.prompt(record)
            except InputError as error:
                reason = getattr(error, "reason", "not_encodable")
                refused.append((record.sample_id, record.source, reason, str(error)))
        answers = self._answer_all(prompts, records, refused)
        # the list of refusals goes first: the part's own file says that all of it is done
        write_refused(self.spec.out, self.FOLDER, 0, name, refused)
        done = [records[i] for i in sorted(answers)]
        table = self.table(done, [answers[i] for i in sorted(answers)])
        table = table.replace_schema_metadata({FOOTER: json.dumps(self.spec.key, sort_keys=True)})
        write_rows(join(self.spec.out, self.FOLDER, f"{name}.parquet"), table, self.SCHEMA)
        return {"part": name, "rows": len(done), "seconds": time.perf_counter() - start}

    def prompt(self, record: Record) -> Encoded:
        """Return what is asked of a record.

        Raises:
            InputError: the record cannot be asked or scored; it is refused with the error's `reason`, if it has one.
        """
        benchmark = BENCHMARKS[self.spec.config.benchmark]
        # an empty answer shows, before anything is asked, whether the record can be scored
        benchmark.score("", record)
        return self.encoder.prompt(benchmark.ask(record))

    def answer(self, prompts: Sequence[Encoded], pixels: Sequence[Pictures]) -> list[Any]:
        """Return the greedy answers to B prompts; `pixels` are each one's pictures, uint8 [3, H, W].

        A subclass may give something else a row, which `table` reads, or a `RefusedError`, which is listed.
        """
        finite = _Finite()
        texts = self.texts(self.generate(self.inputs(prompts, pixels), finite))
        # with NaN for every word greedy decoding still "answers": with word 0
        return [RefusedError("not_finite", _OVERFLOW) if b else t for t, b in zip(texts, finite.bad(), strict=True)]

    def table(self, records: list[Record], answers: list[Any]) -> pa.Table:
        """Return a part's rows, of what `answer` gave."""
        name = self.spec.config.benchmark
        scores = [BENCHMARKS[name].score(a, r) for a, r in zip(answers, records, strict=True)]
        return _evals(self.spec.config.run, name, records, answers, scores)

    @staticmethod
    def unanswered(spec: EvalSpec, records: list[Record]) -> pa.Table:
        """Return the rows of records that could not be asked: no answer, score 0."""
        config = spec.config
        return _evals(config.run, config.benchmark, records, [""] * len(records), [0.0] * len(records))

    def inputs(self, prompts: Sequence[Encoded], pixels: Sequence[Pictures]) -> dict[str, torch.Tensor]:
        """Return a batch on the device, padded on the left: `input_ids`, `attention_mask`, `labels`, `pixel_values`."""
        batch = collate(prompts, [()] * len(prompts), self.pad_id, side="left")
        inputs = {k: batch[k].to(self.spec.device) for k in ("input_ids", "attention_mask", "labels")}
        u8_I3HW, _ = stack(pixels)
        if u8_I3HW is not None:
            # bytes travel to the device, floats are made there
            inputs["pixel_values"] = self.encoder.normalise(u8_I3HW.to(self.spec.device)).to(self.model.dtype)
        return inputs

    def generate(self, inputs: dict[str, torch.Tensor], watch: LogitsProcessor | None = None) -> torch.Tensor:
        """Return the generated tokens [B, S], on the CPU; pads behind a row's end mark; `watch` sees each step's logits."""
        asked = {k: v for k, v in inputs.items() if k != "labels"}
        with torch.inference_mode():
            tokens_BT = self.model.generate(**asked, logits_processor=LogitsProcessorList([watch] if watch else []))
        return tokens_BT[:, inputs["input_ids"].shape[1] :].cpu()

    def texts(self, new_BS: torch.Tensor) -> list[str]:
        """Return generated tokens as texts."""
        return [t.strip() for t in self.tokenizer.batch_decode(new_BS, skip_special_tokens=True)]

    def _answer_all(self, prompts: dict[int, Encoded], records: list[Record], refused: list[Refusal]) -> dict[int, Any]:
        config, answers = self.spec.config, dict[int, Any]()
        rows = list(prompts)
        lengths = [len(prompts[i].input_ids) + config.max_new_tokens for i in rows]
        batches = [[rows[i] for i in b] for b in length_batches(lengths, config.token_budget, config.max_rows)]
        with ThreadPoolExecutor(config.threads) as threads:

            def decode(batch: list[int]) -> list[Future[Pictures]]:
                return [threads.submit(self._pixels, prompts[i], records[i]) for i in batch]

            waiting = decode(batches[0]) if batches else []
            for number, batch in enumerate(batches):
                # one batch ahead: the next pictures are decoded while this batch is answered
                current, waiting = waiting, decode(batches[number + 1]) if number + 1 < len(batches) else []
                sound: list[int] = []
                pixels: list[Pictures] = []
                for i, future in zip(batch, current, strict=True):
                    try:
                        pixels.append(future.result())
                        sound.append(i)
                    except ImageError as error:
                        refused.append((records[i].sample_id, records[i].source, error.reason, str(error)))
                found = self.answer([prompts[i] for i in sound], pixels) if sound else []
                for i, answer in zip(sound, found, strict=True):
                    if isinstance(answer, RefusedError):
                        refused.append((records[i].sample_id, records[i].source, answer.reason, str(answer)))
                    else:
                        answers[i] = answer
        return answers

    def _pixels(self, prompt: Encoded, record: Record) -> Pictures:
        return [self.encoder.load(self.root, i, record.seen(i)) for i in prompt.images]

    def _set_greedy(self) -> None:
        """Replace what the checkpoint says about sampling: its own settings would be merged into ours."""
        base = base_of(self.model)
        own = getattr(base.generation_config, "eos_token_id", None)
        ends = {int(i) for i in (own if isinstance(own, list) else [own]) if i is not None}
        # a template's own mark, where it is not the tokenizer's end
        ends |= {int(i) for i in (self.tokenizer.eos_token_id, self.encoder.end_id) if i is not None}
        self.ends = sorted(ends)
        base.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.spec.config.max_new_tokens,
            eos_token_id=self.ends or None,
            pad_token_id=self.pad_id,
        )


class _Finite(LogitsProcessor):
    """Lets logits through, and remembers the rows in which one became NaN or infinite."""

    def __init__(self) -> None:
        self._bad_B: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        # less than all words may be forbidden: −inf is no fault
        bad_B = (scores.isnan() | scores.isposinf()).any(-1)
        self._bad_B = bad_B if self._bad_B is None else self._bad_B | bad_B
        return scores

    def bad(self) -> list[bool]:
        """Return the rows [B] that cannot be trusted."""
        assert self._bad_B is not None
        return self._bad_B.tolist()


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
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, EVALS, strict=True)], schema=EVALS)


def length_batches(lengths: Sequence[int], budget: int, max_rows: int) -> list[list[int]]:
    """Split rows into batches of like length with `rows × longest ≤ budget`, longest first; each row once.

    A row longer than the budget is a batch of its own.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        last = batches[-1] if batches else []
        if last and len(last) < max_rows and (len(last) + 1) * lengths[last[0]] <= budget:
            last.append(i)
        else:
            batches.append([i])
    return batches
