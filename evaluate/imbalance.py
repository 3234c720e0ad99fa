"""Modality imbalance of a checkpoint: LMAR and visual attention mass by layer, over a test pool (spec: MoReS §4, eq. 2).

What the paper leaves open is fixed here. Queries: the positions whose outputs chose the generated tokens, an end mark
included (`models/taps/modality.py`), so an answer that ends at once has one. Attention of a token: mean over heads and
queries. Image: all image tokens of the row. Text: tokens of the question's own text (not BOS, system prompt, role words,
line breaks around the picture, nor the answer). LMAR: the mean over rows of mean image attention / mean text attention, and
beside it the ratio of the two means over rows. Rows without a picture, or without a word, are listed as refused.
Axes: N rows, L layers, S generated tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..models.protocol import base_of
from ..models.taps.modality import ModalityTap
from ..pool.encode import Encoded
from ..pool.records import Record
from ..pool.refusals import RefusedError
from ..store.files import join
from ..store.reading import as_kind
from ..store.tables import IMBALANCE
from .answers import AnswerActor
from .config import EvalSpec, ImbalanceConfig, ShardsReport
from .shards import Measurement, Progress, carry_out, make_spec
from .statistics.bootstrap import mean_intervals

TABLE, REPORT = "imbalance.parquet", "imbalance.json"
# of the bootstrap; the intervals are part of the report, not of what is compared
SEED = 0
Curve = dict[str, list[float]]


@dataclass
class ImbalanceReport(ShardsReport):
    """What was found, in the IMBALANCE table; `lmar`, `mass`: means over rows and layers.

    `curve` has a list of L numbers for each of `lmar`, `lmar_low`, `lmar_high` (95 % interval of the mean over rows),
    `mass`, `mass_low`, `mass_high` (attention on all image tokens, of 1) and `ratio_of_means`; `by_task` a curve per task.
    `reasons` counts the refused rows.
    """

    reasons: dict[str, int] = field(default_factory=dict)
    lmar: float = 0.0
    mass: float = 0.0
    curve: Curve = field(default_factory=dict)
    by_task: dict[str, Curve] = field(default_factory=dict)


class ImbalanceActor(AnswerActor):
    """Answers as `AnswerActor` does, and keeps what each answer attended to."""

    FOLDER, SCHEMA = "imbalance", IMBALANCE
    # there is nothing wrong to count: what is measured is measured on those with a picture
    REFUSED_COUNT = False

    def __init__(self, spec: EvalSpec) -> None:
        super().__init__(spec)
        self.tap = ModalityTap(self.generator.model)

    def prompt(self, record: Record) -> Encoded:
        """Return the first question, its text marked by labels; see `AnswerActor.prompt`."""
        if not record.images:
            raise RefusedError("no_image")
        prompt = self.generator.encoder.prompt(record, True, self.decoder.sizes(record))
        if not (prompt.labels >= 0).any():
            raise RefusedError("no_question")
        return prompt

    def answer(self, prompts: Sequence[Encoded]) -> list[dict[str, Any] | RefusedError]:
        """Return B rows of IMBALANCE without what the records say; see `AnswerActor.answer`."""
        inputs = self.generator.inputs(prompts)
        image_BT = self.generator.family.image_mask(base_of(self.generator.model).config, inputs["input_ids"])
        text_BT = inputs["labels"] >= 0
        with self.tap.watch(image_BT, text_BT):
            new_BS = self.generator.generate(inputs, self.sampling.max_new_tokens)
        counts_B = generated(new_BS, self.generator.ends)
        image_BL, text_BL = (x.double().cpu().numpy() for x in self.tap.shares(counts_B))
        n_image_B, n_text_B = (m.sum(1).cpu().numpy() for m in (image_BT, text_BT))
        with np.errstate(divide="ignore", invalid="ignore"):
            lmar_BL = (image_BL / n_image_B[:, None]) / (text_BL / n_text_B[:, None])
        columns = {
            "answer": self.generator.texts(new_BS),
            "n_generated": counts_B.tolist(),
            "n_image": n_image_B.tolist(),
            "n_text": n_text_B.tolist(),
            "lmar": lmar_BL.tolist(),
            "image": image_BL.tolist(),
            "text": text_BL.tolist(),
        }
        # a model that overflows, or no attention at all on the question
        sound_B = np.isfinite(lmar_BL).all(1)
        return [
            dict(zip(columns, row, strict=True))
            if sound
            else RefusedError("not_finite", "the ratio of its attentions is no number")
            for sound, row in zip(sound_B, zip(*columns.values(), strict=True), strict=True)
        ]

    def table(self, records: list[Record], answers: list[dict[str, Any]]) -> pa.Table:
        """Return a shard's rows; see `AnswerActor.table`."""
        rows = [
            {"run": self.spec.config.run, "task": r.task, "sample": str(r.sample_id)} | a
            for r, a in zip(records, answers, strict=True)
        ]
        return pa.Table.from_pylist(rows, IMBALANCE)


def generated(new_BS: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Return how many tokens each row generated, its end mark included; all where it has none."""
    ended_BS = torch.isin(new_BS, torch.tensor(ends, dtype=new_BS.dtype))
    # steps up to the first end mark: those with no end before them
    return ((ended_BS.int().cumsum(1) - ended_BS.int()) == 0).sum(1)


def measure(config: ImbalanceConfig, out: str, progress: Progress | None = None, here: bool = False) -> ImbalanceReport:
    """Measure what is not measured yet, write `OUT/imbalance.parquet` and `.json`, return what was found.

    Resumable as `run.evaluate` is, and `here` as there: `OUT/imbalance/part-*.parquet` appear whole, a finished one does
    nothing.

    Raises:
        KeyMismatchError: `out` holds numbers of another model, pool or setting; lists what differs.
        InputError: no checkpoint, no pool, attention that cannot be read, or no row with a picture and a question.
    """
    spec = make_spec(config, out, here)
    fields = carry_out(spec, Measurement(ImbalanceActor, TABLE, REPORT, _summary), progress)
    return as_kind(fields, ImbalanceReport, join(out, REPORT), "imbalance measurement", "Delete it and run again.")


def _summary(table: pa.Table, _: EvalSpec) -> dict[str, Any]:
    tasks = np.array(table["task"].to_pylist(), object)
    by_task = {str(t): table.filter(pa.array(tasks == t)) for t in sorted(set(tasks))}
    curve = curve_of(table)
    return {
        "lmar": float(np.mean(curve["lmar"])),
        "mass": float(np.mean(curve["mass"])),
        "curve": curve,
        "by_task": {t: curve_of(rows) for t, rows in by_task.items()},
        "rows_by_task": {t: rows.num_rows for t, rows in by_task.items()},
    }


def curve_of(table: pa.Table) -> Curve:
    """Return the curves of an IMBALANCE table, see `ImbalanceReport`.

    Raises:
        InputError: the table is empty.
    """
    lmar_NL, image_NL, text_NL = (np.array(table[c].to_pylist(), np.float64) for c in ("lmar", "image", "text"))
    n_image_N1, n_text_N1 = (table[c].to_numpy()[:, None] for c in ("n_image", "n_text"))
    layers = lmar_NL.shape[1] if lmar_NL.ndim == 2 else 0
    both = mean_intervals(np.concatenate([lmar_NL, image_NL], -1), SEED)
    curve: Curve = {}
    for name, some in (("lmar", both[:layers]), ("mass", both[layers:])):
        curve[name] = [i.estimate for i in some]
        curve[f"{name}_low"], curve[f"{name}_high"] = [i.low for i in some], [i.high for i in some]
    ratio_L = (image_NL / n_image_N1).mean(0) / (text_NL / n_text_N1).mean(0)
    return curve | {"ratio_of_means": ratio_L.tolist()}
