"""A training of one worker inside this process, for sweeps whose trials are shorter than the start of a process.

The same loop as under Ray Train, and on a CPU the same numbers to the last digit. A resumable state lies in `OUT/states`;
the newest two stay, each appears whole, so a process that is killed goes on where it was.
"""

import copy
import gc
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from ..models.folders import chain
from ..models.load import Loaded, load
from ..store.errors import VinnowError
from ..store.files import exists, is_uri, join, whole_folder
from ..store.folders import get_folder, names, put_folder, remove
from .checkpoint import PROGRESS
from .config import TrainConfig
from .loop import run_worker
from .stop import failed

STATES = "states"
_KEPT = 2
# a model is kept beside the one that is trained only where so much memory is left: this many times its size
_ROOM = 3


class Bases:
    """The model that this process loaded last, kept as it was on disk: each training of it gets a copy."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._loaded: Loaded | None = None

    def get(self, config: TrainConfig) -> Loaded:
        """Return a training's model on its device. Raises: as `models.load.load`."""
        device = "cuda" if config.use_gpu else "cpu"
        if config.quantise is not None:  # its weights live in a GPU's own layout: no copy is made of them
            return load(config.model, config.precision, device, quantise=config.quantise)
        key = (config.precision, config.model, *_files(config.model))
        if self._loaded is None or self._key != key:
            self._loaded = None
            loaded = load(config.model, config.precision, "cpu")
            size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
            if size * _ROOM > psutil.virtual_memory().available:
                return Loaded(loaded.model.to(device), loaded.processor, loaded.path)
            self._key, self._loaded = key, loaded
        copied = copy.deepcopy(self._loaded.model).to(device)
        return Loaded(copied.eval(), self._loaded.processor, self._loaded.path)


class SoloSession:
    """The only worker of a training."""

    rank = 0

    def __init__(self, out: str, bases: Bases) -> None:
        self._states, self._bases = join(out, STATES), bases

    def load(self, config: TrainConfig) -> Loaded:
        """Return a copy of the model that this process keeps."""
        return self._bases.get(config)

    @contextmanager
    def state(self) -> Iterator[str | None]:
        """Give the newest state."""
        states = self._state_names()
        if not states or not is_uri(self._states):
            yield join(self._states, states[-1]) if states else None
            return
        with tempfile.TemporaryDirectory() as folder:
            get_folder(join(self._states, states[-1]), folder)
            yield folder

    def report(self, numbers: dict[str, Any], folder: str | None = None) -> None:
        """Keep a state; numbers stand in the training's log already."""
        if folder is None:
            return
        place = join(self._states, f"step-{int(numbers['step']):09d}")
        if is_uri(place):
            put_folder(folder, place)
        else:
            os.makedirs(self._states, exist_ok=True)
            remove(place)
            with whole_folder(place) as temporary:
                shutil.copytree(folder, temporary, dirs_exist_ok=True)
        for old in self._state_names()[:-_KEPT]:
            remove(join(self._states, old))

    def close(self, engine: Any) -> None:
        """Free what the engine holds, hooks included."""
        engine.destroy()

    def _state_names(self) -> list[str]:
        known = [n for n in names(self._states) if re.fullmatch(r"step-\d+", n)]
        # what lies at a URI appears file by file: the one that says its step is the last
        return [n for n in known if exists(join(self._states, n, PROGRESS))] if is_uri(self._states) else known


def fit_here(config: TrainConfig, out: str, bases: Bases) -> None:
    """Train in this process, from the last state to the last step.

    Raises:
        InputError, NotFiniteError, OutOfMemoryError: as `loop.run_worker`.
        TrainingFailedError: something that another attempt may get past.
    """
    _join_alone(config)
    try:
        run_worker(config, out, SoloSession(out, bases))
    except VinnowError:
        raise
    except Exception as error:
        raise failed(out, error) from error
    finally:
        _tidy(config)


def drop_states(out: str) -> None:
    """Remove the resumable states of a training that is done: each takes several times the room of its model."""
    remove(join(out, STATES))


def _join_alone(config: TrainConfig) -> None:
    """Make the process group of one that DeepSpeed asks for; it stays for the next training."""
    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"})
    if not torch.distributed.is_initialized():
        backend = "nccl" if config.use_gpu else "gloo"
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    if config.use_gpu:
        torch.cuda.reset_peak_memory_stats()


def _tidy(config: TrainConfig) -> None:
    """Leave the process as a training would find it that is the first."""
    if config.compile:
        torch.compiler.reset()
    gc.collect()
    if config.use_gpu:
        torch.cuda.empty_cache()


def _files(folder: str) -> list[tuple[str, int, int]]:
    """Return what tells whether the files of a model are those of before: names, times and sizes of all it builds on."""
    files = []
    for part in chain(folder):
        for entry in sorted(os.scandir(part), key=lambda e: e.name):
            about = entry.stat()
            files.append((os.path.join(part, entry.name), about.st_mtime_ns, about.st_size))
    return files
