"""The model that a run begins with: a folder that is there, or a tiny twin, which is a stage of its own."""

from dataclasses import dataclass
from typing import Any

from ...models.specs import TinyModelConfig
from ...pool.reader import Pool
from ...store.files import is_uri
from ...store.manifest import StageRecord
from ...store.scratch import local_output
from .config import RunConfig
from .identity import without
from .stage import Planned, Planning, Run, Stage, StageStatus

# whose texts the twin's tokenizer learns: every pool but the test's
_TAUGHT = ("captions", "pool", "target")


@dataclass(frozen=True)
class Twin(Stage):
    """A tiny model of random weights, its tokenizer trained on the pools' words."""

    @property
    def config(self) -> TinyModelConfig:
        """Its sizes."""
        assert self.run_config.model.twin is not None
        return self.run_config.model.twin

    @property
    def name(self) -> str:
        """`twin`."""
        return "twin"

    @property
    def needs(self) -> tuple[str, ...]:
        """The pools whose texts it learns."""
        return tuple(f"ingest-{n}" for n in _TAUGHT if getattr(self.run_config, n) is not None)

    def settings(self) -> dict[str, Any]:
        """Its sizes and its seed."""
        return {"model.twin": without(self.config)}

    def estimate(self, planning: Planning) -> list[Planned]:
        """It costs nothing that counts."""
        return [self.line(self.name, "build a tiny LLaVA", 0, self.config)]

    def run(self, run: Run) -> None:
        """Build it in `RUN/twin`."""
        out = run.folder("twin")

        def work(record: StageRecord) -> None:
            from ...models.family.of_llava.tiny import build_tiny_model, words_of
            from ...models.load import model_digest

            pools = [Pool(run.folder(n.removeprefix("ingest-"))) for n in self.needs]
            with local_output(out) as local:
                build_tiny_model(local, words_of(pools), self.config)
            record.facts["digest"] = model_digest(out)

        inputs = {"twin": self.config.model_dump_json(), "pool": Pool(run.folder("pool")).digest}
        run.stage(self.name, inputs, work)

    def progress(self, run_dir: str) -> StageStatus:
        """It is there or not: a folder appears whole."""
        return self.begun(False, "")


def first_model(run: Run) -> str:
    """Return the folder of the model that a run begins with.

    Raises:
        InputError: there is none, or it is damaged.
    """
    from ...models.check import check_model
    from ...models.folders import check_folder

    path = run.config.model.path
    if path is None:
        return run.folder("twin")
    check_model(path)
    return path if is_uri(path) else str(check_folder(path))


def model_stage(config: RunConfig) -> str | None:
    """Return the stage that leaves the model which proxy and choices begin with; None where it is the user's folder."""
    if config.warmup:
        return f"warmup-{config.warmup[-1].name}"
    return "twin" if config.model.twin is not None else None
