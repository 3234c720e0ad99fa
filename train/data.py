"""A worker's micro-batches: records, pictures and labels, prepared ahead by a thread or by processes of their own.

Not Ray Data: which rows are in which step is a pure function of (ids, seed, epoch) (`order.py`), so a training that was cut
off goes on in the middle of an epoch with the very batch that came next, for any number of workers and loaders. A stream
of blocks has no such place to go back to, and would have to be shuffled and grouped by length in memory
(`benchmarks/loading.py` measures both).
"""

import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..models import encoding
from ..models.forward import on_device
from ..models.load import load_processor
from ..pool.collate import collate
from ..pool.decode import Decoder, Refusal
from ..pool.encode import Encoded, EncodeError, Encoder
from ..pool.reader import Pool
from ..pool.records import Record
from ..store.arrays import Array
from ..store.errors import MissingRowsError
from ..store.facts import read_lines
from ..store.files import append_line, list_files, write_lines
from ..store.ids import ids_digest
from ..store.prefetch import prefetch
from ..store.tables import PICKS, check_unique, read_rows
from .config import TrainConfig
from .order import Order

REFUSED, CUT = "refused", "cut"
AHEAD = 4


class Rows:
    """The rows to train on: the picks' or the whole pool's, sorted by id (independent of the files' order).

    Raises:
        MissingRowsError: the picks hold rows that the pool does not have.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.pool = Pool(config.pool)
        ids = self.pool.ids()
        if config.picks is not None:
            ids = _picked(config.picks)
            known = int(np.isin(ids, self.pool.ids()).sum())
            if known < len(ids):
                raise MissingRowsError(
                    f"picks {config.picks!r}: {known} of {len(ids)} rows are in the pool {config.pool!r}. "
                    "Give the pool that they were chosen from, or select again."
                )
        self.ids = np.sort(ids)
        rows = np.argsort(self.pool.ids())
        rows = rows[np.searchsorted(self.pool.ids()[rows], self.ids)]
        self.has_image = self.pool.has_image()[rows]
        self.n_chars = self.pool.column("n_chars")[rows]

    def leave_out(self, ids: Array) -> int:
        """Drop the rows of these ids; return how many there were."""
        keep = ~np.isin(self.ids, ids)
        self.ids, self.has_image, self.n_chars = self.ids[keep], self.has_image[keep], self.n_chars[keep]
        return int((~keep).sum())


def rows_digest(config: TrainConfig) -> str:
    """Name the rows to train on by their ids, so that other picks at the same path are seen."""
    return Pool(config.pool).digest if config.picks is None else ids_digest(_picked(config.picks))


def _picked(path: str) -> Array:
    picks = read_rows(path, PICKS)
    check_unique(picks, path)
    return picks["sample_id"].to_numpy()


def make_encoder(config: TrainConfig, processor: Any) -> Encoder:
    """Return the encoder of a training's rows."""
    return encoding.make_encoder(processor, config.template, config.max_len, config.image_mode, config.pictures)


class NoTrainedTokenError(EncodeError):
    """A row that would be fed and train nothing."""

    reason = "no_trained_token"


class Batches:
    """Makes collated micro-batches of row positions; rows that cannot be used are dropped and listed."""

    def __init__(self, config: TrainConfig, rows: Rows, processor: Any, refused_file: str) -> None:
        self.rows, self.encoder = rows, make_encoder(config, processor)
        self.decoder = Decoder(self.encoder, config.image_root or rows.pool.image_root, config.loader_threads)
        tokenizer = processor.tokenizer
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.refused_file, self.refused = refused_file, set[int]()
        self._fresh = Counter[str]()  # refused since the last batch, by reason
        # rows of whose answers a part lies behind max_len: used, and told
        folder, name = os.path.split(refused_file)
        self.cut_file, self.cut = os.path.join(folder, name.replace(REFUSED, CUT)), set[int]()
        self.step: int | None = None  # the optimizer step (1-based) that rows are made for, where there is one
        self._kept: dict[int, Encoded] = {}
        self._room = config.cache_mb * 1_000_000

    def make(self, positions: Array, normalised: bool = True) -> dict[str, Any]:
        """Return the batch of these positions; with no usable row, one placeholder without labels.

        `asked` and `used` count the rows wanted and those that could be used; the others are listed, and counted by reason
        in the `refused` of the batch that met them first. Pictures that are not
        normalised yet are uint8, a quarter of the bytes to hand over.
        """
        ready = self._prepared(self.rows.ids[positions])
        nothing = Encoded(0, np.full(2, self.pad_id, np.int64), np.full(2, -100), ())
        batch = collate(ready or [nothing], self.pad_id)
        batch = self.encoder.finish(batch) if normalised else batch
        fresh, self._fresh = self._fresh, Counter[str]()
        return batch | {"asked": len(positions), "used": len(ready), "refused": dict(fresh)}

    def _prepared(self, ids: Array) -> list[Encoded]:
        """Return the usable rows of these ids, in order; rows seen in an earlier epoch may come from memory."""
        wanted = [i for i in dict.fromkeys(ids.tolist()) if i not in self._kept]
        records = list(self.rows.pool.take(np.array(wanted, np.uint64))) if wanted else []
        fresh: dict[int, Encoded] = {}
        for row in self.decoder.rows(records, self._encoded):
            if isinstance(row, Refusal):
                self._refuse(row)
                continue
            fresh[row.sample_id] = row
            if self._room >= row.nbytes:  # full means full: access is uniform, so throwing rows out gains nothing
                self._kept[row.sample_id] = row
                self._room -= row.nbytes
        both = (self._kept.get(i) or fresh.get(i) for i in ids.tolist())
        return [row for row in both if row is not None]

    def _encoded(self, record: Record) -> Encoded:
        encoded = self.decoder.encode(record)
        if (encoded.labels[1:] == -100).all():
            raise NoTrainedTokenError(
                f"record {record.sample_id}: none of its {len(encoded.labels)} tokens is trained: its answers are "
                f"empty, or cut off at max_len {self.encoder.max_len}."
            )
        if encoded.cut and record.sample_id not in self.cut:
            self.cut.add(record.sample_id)
            append_line(self.cut_file, {"sample_id": record.sample_id, "tokens": encoded.cut, "step": self.step})
        return encoded

    def _refuse(self, row: Refusal) -> None:
        if row.sample_id in self.refused:
            return
        self.refused.add(row.sample_id)
        self._fresh[row.reason] += 1
        listed = {"sample_id": row.sample_id, "reason": row.reason, "detail": row.detail, "step": self.step}
        append_line(self.refused_file, listed)


class MicroBatches(Dataset[Any]):
    """One worker's micro-batches by number, `accumulation` of them a step; pictures in uint8."""

    def __init__(self, config: TrainConfig, out: str, rank: int) -> None:
        self.config, self.out, self.rank = config, out, rank
        self._opened: tuple[Batches, Order] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens them anew."""
        return vars(self) | {"_opened": None}

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return the number-th micro-batch of the training."""
        batches, order = self.opened()
        step, accumulated = divmod(number, self.config.accumulation)
        batches.step = step + 1
        return batches.make(order.micro_batch(step, accumulated, self.rank), normalised=False)

    def opened(self) -> tuple[Batches, Order]:
        """Return what makes them in this process."""
        if self._opened is None:
            info, rows = get_worker_info(), Rows(self.config)
            name = f"{REFUSED}-rank{self.rank}" + ("" if info is None else f"-loader{info.id}")
            refused = os.path.join(self.out, f"{name}.jsonl")
            batches = Batches(self.config, rows, load_processor(self.config.model), refused)
            self._opened = (batches, Order(self.config, rows.has_image, rows.n_chars))
        return self._opened


def refusals(out: str, prefix: str = REFUSED) -> dict[int, str]:
    """Return the rows that could not be used so far, and why, by sample_id; of `validation-` rows with that prefix."""
    reasons: dict[int, str] = {}
    for file in _lists(out, f"{prefix}-rank"):
        reasons |= {row["sample_id"]: str(row.get("reason")) for row in _listed(file)}
    return reasons


def count_cut(out: str) -> int:
    """Return how many rows lost a part of their answers at `max_len`."""
    return len({row["sample_id"] for file in _lists(out, f"{CUT}-rank") for row in _listed(file)})


def cut_refused(out: str, rank: int, done: int) -> None:
    """Drop what a worker listed of steps after `done`: those steps come again, and pictures may be back."""
    for file in list_files(out, ".jsonl"):
        if not re.fullmatch(rf"({REFUSED}|{CUT})-rank{rank}(-loader\d+)?\.jsonl", os.path.basename(file)):
            continue
        kept = [row for row in _listed(file) if (row.get("step") or 0) <= done]
        write_lines(file, kept)


def _lists(out: str, prefix: str) -> list[str]:
    return [file for file in list_files(out, ".jsonl") if os.path.basename(file).startswith(prefix)]


def _listed(file: str) -> list[dict[str, Any]]:
    kinds = {"sample_id": int, "reason": str | None, "step": int | None}
    rows = read_lines(file, "list of rows", "Delete it, and run again.", **kinds)
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def stream(source: MicroBatches, numbers: range) -> Iterator[dict[str, Any]]:
    """Yield these micro-batches, in order, prepared ahead; in pinned memory where a GPU takes them."""
    config = source.config
    if not config.loader_workers:
        yield from make_ahead(source.__getitem__, numbers)
        return
    # a fork of a Ray worker would take its threads' locks along; the server imports what its children need once
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    loader = DataLoader(
        source,
        batch_size=None,
        sampler=numbers,
        num_workers=config.loader_workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        pin_memory=config.use_gpu,
        multiprocessing_context=server,
    )
    yield from loader


def _as_it_is(batch: Any) -> Any:
    return batch


def make_ahead(make: Callable[[Any], Any], work: Iterable[Any]) -> Iterator[Any]:
    """Yield `make(item)` for each item, made by a thread up to AHEAD items before they are asked for."""
    with ThreadPoolExecutor(1) as thread:
        yield from prefetch(thread, make, work, AHEAD)


def on_engine(batch: dict[str, Any], engine: Any, encoder: Encoder) -> dict[str, Any]:
    """Move a collated batch to the engine's device; its media are made there what the model takes."""
    return on_device(batch, engine.module.model, encoder.finish, places=False)
