"""The answering actor: a plain class that turns parts of a test pool into parts of EVALS."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..models.load import load
from ..pool.collate import collate
from ..pool.encode import Encoded, EncodeError, Encoder
from ..pool.images import ImageError, load_image
from ..pool.reader import Pool
from ..pool.records import Record
from ..store.files import join
from ..store.tables import EVALS, write_rows
from .benchmarks import find
from .config import EvalConfig


class AnswerActor:
    """`__init__` loads the model; `__call__` answers and writes whole parts."""

    def __init__(self, config: EvalConfig, out: str) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.out = config, out
        self.device = "cuda" if config.gpus_per_actor else "cpu"
        loaded = load(config.model, config.precision, self.device)
        self.model, tokenizer = loaded.model, loaded.processor.tokenizer
        self.tokenizer = tokenizer
        self.encoder = Encoder(loaded.processor, config.template, config.max_len, image_mode=config.image_mode)
        self.pool = Pool(config.pool)
        self.parts = {p.name: p for p in self.pool.parts(config.rows_per_part)}
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.benchmark = find(config.benchmark)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take rows of (part); return the questions answered in each."""
        return {"part": batch["part"], "rows": np.array([self.compute(str(n)) for n in batch["part"]])}

    def compute(self, name: str) -> int:
        """Answer one part and write it; a row that cannot be shown to the model counts as wrong, its answer says why."""
        records = self.pool.read(self.parts[name])
        answers: dict[int, str] = {}
        ready: list[tuple[int, Encoded, np.ndarray[Any, Any] | None]] = []
        for i, record in enumerate(records):
            try:
                ready.append((i, *self._prepare(record)))
            except (EncodeError, ImageError) as error:
                answers[i] = f"[{error.reason}] {error}"
        for rows in self._batches(ready):
            for (i, _, _), text in zip(rows, self._generate(rows), strict=True):
                answers[i] = text
        self._write(name, records, [answers[i] for i in range(len(records))])
        return len(records)

    def _prepare(self, record: Record) -> tuple[Encoded, np.ndarray[Any, Any] | None]:
        encoded = self.encoder.prompt(record)
        if encoded.image is None:
            return encoded, None
        root = self.config.image_root or self.pool.image_root
        return encoded, self.encoder.pixels(load_image(root, encoded.image))

    def _batches(self, ready: list[Any]) -> Iterator[list[Any]]:
        """Rows of like length together, under the token budget (the answer's room counts)."""
        rows: list[Any] = []
        for row in sorted(ready, key=lambda r: len(r[1].input_ids)):
            longest = len(row[1].input_ids) + self.config.max_new_tokens
            full = (len(rows) + 1) * longest > self.config.token_budget or len(rows) == self.config.max_rows
            if rows and full:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    @torch.no_grad()
    def _generate(self, rows: list[Any]) -> list[str]:
        batch = collate([r[1] for r in rows], [r[2] for r in rows], self.pad_id, side="left")
        pixels = batch["pixel_values"]
        tokens = self.model.generate(
            input_ids=batch["input_ids"].to(self.device),
            attention_mask=batch["attention_mask"].to(self.device),
            pixel_values=None if pixels is None else pixels.to(self.device, next(self.model.parameters()).dtype),
            do_sample=False,
            max_new_tokens=self.config.max_new_tokens,
            pad_token_id=self.pad_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        new = tokens[:, batch["input_ids"].shape[1] :]
        return [t.strip() for t in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _write(self, name: str, records: list[Record], answers: list[str]) -> None:
        references = [r.conversations[1]["value"] for r in records]
        scores = [self.benchmark.judge(a, r) for a, r in zip(answers, references, strict=True)]
        n = len(records)
        columns = {
            "run": [self.config.run] * n,
            "benchmark": [self.benchmark.name] * n,
            "task": [r.task for r in records],
            "sample": [f"{r.sample_id:016x}" for r in records],
            "correct": [s == 1 for s in scores],
            "score": scores,
            "answer": answers,
            "reference": references,
        }
        os.makedirs(self.out, exist_ok=True)
        write_rows(join(self.out, "parts", f"{name}.parquet"), pa.table(columns, schema=EVALS), EVALS)
