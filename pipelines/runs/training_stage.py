"""Trainings of the run's own: those of the warm-up, each from the one before, and the proxy over the whole pool."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...actors.config import CheckpointRef
from ...pool.reader import Pool
from ...store.errors import InputError
from ...store.facts import read_lines
from ...store.files import absolute, exists, folder_bytes, join
from ...store.manifest import StageRecord
from ...store.reading import parse_json
from ...train.config import TrainConfig
from ...train.recipe import TrainRecipe
from .config import PLACES
from .identity import TRAIN_FREE, how_trained, kept, pace_of
from .model_stage import first_model
from .sections import StageSection
from .stage import Held, Item, Planned, Planning, Run, Stage, StageStatus, tell
from .watch import TRAINED, last_step, training_bar

if TYPE_CHECKING:
    from ...train.run import TrainReport


@dataclass(frozen=True)
class Training(Stage):
    """One training: `section` says of what data and how; `before`: the stage that leaves the model which it begins with."""

    section: StageSection
    before: str | None

    @property
    def needs(self) -> tuple[str, ...]:
        """The model that it begins with, and its data."""
        return (*([self.before] if self.before else []), f"ingest-{self.section.data}")

    def items(self) -> list[Item]:
        """The training, whole."""
        settings, pace = how_trained(self.section.train.recipe())
        data = {"data": self.section.data, "seed": self.run_config.seed, "model.path": self.run_config.model.path}
        return [Item(self.name, {self.where: settings} | data, self.needs, {self.where: pace})]

    @property
    def where(self) -> str:
        """Where its section stands in the run, for messages."""
        return self.name

    def config(self, **filled: Any) -> TrainConfig:
        """Return its section as a config; `filled`: what the run gives."""
        return self.section.train.job(seed=self.run_config.seed, **filled)

    def estimate(self, planning: Planning) -> list[Planned]:
        """Price its steps."""
        return [training_line(self, self.name, self.section.train.recipe(), planning, self.section.data)]

    def stand(self, lines: list[Planned], planning: Planning) -> None:
        """A training that was cut off goes on from its last resumable state."""
        recipe, folder = self.section.train.recipe(), join(self.run_config.out, "train", self.name)
        for line in lines:
            there = line.steps if self.is_done() else steps_there(folder, line.steps)
            line.stands(there, line.steps, "steps", 0.0 if self.is_done() else left_of(recipe, folder, line.steps))

    def run(self, run: Run) -> None:
        """Train into `RUN/train/NAME`.

        Raises:
            InputError: what is to be read is missing, or does not fit.
        """
        pool, out = run.folder(self.section.data), run.folder("train", self.name)
        model = model_before(run, self.before)
        config = self.config(model=absolute(model), pool=absolute(pool))

        def work(record: StageRecord) -> None:
            _train(run, config, out, record)

        how = config.model_dump(mode="json", exclude={"model", "pool", *PLACES})
        how_kept = kept(how, run.manifest.read(self.name), (*TRAIN_FREE, *pace_of(config)))
        run.stage(self.name, {"config": how_kept, "data": Pool(pool).digest}, work)

    def progress(self, run_dir: str) -> StageStatus:
        """Say its last step, from its log."""
        log = join(run_dir, "train", self.name, "log.jsonl")
        if not exists(log):
            return self.begun(False, "")
        kinds = {"step": int, "loss": float}
        rows = read_lines(log, "step of a training", "Delete that training's folder, and run again.", **kinds)
        return self.begun(True, f"step {rows[-1]['step']}, loss {rows[-1]['loss']:.4f}" if rows else "no step yet")

    def held(self, record: StageRecord, results: list[dict[str, Any]]) -> Held | None:
        """The workers that it had, as long as it took."""
        then = record.inputs.get("config")  # what they were when it ran, if the manifest says
        had = parse_json(then, f"stage {self.name!r}") if isinstance(then, str) else {}
        places = {n: had[n] for n in ("workers", "use_gpu") if isinstance(had, dict) and n in had}
        return workers_of(self.section.train.model_copy(update=places)).times(record.seconds / 3600)


@dataclass(frozen=True)
class WarmUp(Training):
    """A training before the proxy (LLaVA's stage 1, say)."""

    @property
    def name(self) -> str:
        """`warmup-NAME`."""
        return f"warmup-{self.section.name}"

    @property
    def where(self) -> str:
        """`warmup.NAME`."""
        return f"warmup.{self.section.name}"

    def estimate(self, planning: Planning) -> list[Planned]:
        """Price its steps; what follows begins with the model that it leaves."""
        lines = super().estimate(planning)
        planning.prices.advance(self.section.train.recipe())
        return lines


@dataclass(frozen=True)
class Proxy(Training):
    """The training over the whole pool at whose checkpoints features are taken."""

    choosing: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """`proxy`."""
        return "proxy"


def _train(run: Run, config: TrainConfig, out: str, record: StageRecord) -> None:
    from ...actors.cluster import ensure_ray
    from ...train.restarts import told
    from ...train.run import refuse_early, train
    from .begin import require_workers
    from .fitting import check_fit

    refuse_early(config, out)
    check_fit(record.name, config.pool, config.model, config, (config.image_root, config.max_refused))
    ensure_ray(run.config.ray)
    require_workers(config, f"training {record.name}")
    with training_bar(record.name, out):
        report = train(config, out)
    record.facts.update(rows=report.rows, loss=report.loss, steps=report.steps)
    record.account(report.usage)
    record.facts["bytes"] = folder_bytes(out)
    if report.restarts:
        tell(f"{record.name} was {told(report.restarts)}")


def training_line(
    stage: Stage, name: str, config: TrainRecipe, planning: Planning, pool: str, rows: int | None = None
) -> Planned:
    """Return the plan's line of a training, priced; `rows` of the pool, all of them where none are named."""
    rows = planning.rows(pool) if rows is None else rows
    line = stage.line(name, f"train {', '.join(config.parts)}, ZeRO-{config.zero_stage}", rows, config)
    line.steps = config.planned_steps(rows)
    line.bytes = planning.prices.disk(config, line.steps)
    line.on = f"{config.workers} × {'GPU' if config.use_gpu else 'CPU'}"
    line.devices = config.workers
    line.price = planning.prices.training(config, pool, line.steps * config.global_batch)
    return line


def steps_there(folder: str, steps: int) -> int:
    """Return how many of its steps the training in a folder has done; all of them only where it is finished."""
    if exists(join(folder, TRAINED)):
        return steps
    return max(0, min(last_step(folder)[0], steps - 1))


def left_of(recipe: TrainRecipe, folder: str, steps: int) -> float:
    """Return the share of its steps that the training in a folder would do: those since its last resumable state."""
    step = steps_there(folder, steps)
    return 1 - (step if step == steps else step - step % recipe.resume_steps) / steps


def workers_of(recipe: TrainRecipe) -> Held:
    """Return the devices that a training takes."""
    return Held(float(recipe.workers) if recipe.use_gpu else 0.0, float(recipe.workers))


def report_of(run: Run, stage: str) -> "TrainReport":
    """Return the report of a training of the run's own. Raises: as `TrainReport.read`."""
    from ...train.run import TrainReport

    return TrainReport.read(run.folder("train", stage))


def model_before(run: Run, stage: str | None) -> str:
    """Return the folder of the model that a stage left: a training's, the twin's, or the one that the run was given."""
    return first_model(run) if stage in (None, "twin") else report_of(run, stage).model


def checkpoints_of(run: Run, before: str | None) -> list[CheckpointRef]:
    """Return the models at which features are taken, oldest first: the proxy's checkpoints.

    Without a proxy it is the model of the stage `before`, as step 0.

    Raises:
        InputError: the proxy left no checkpoint (set proxy.checkpoint_count or proxy.checkpoint_steps).
    """
    if run.config.proxy is None:
        return [CheckpointRef(0, model_before(run, before))]
    checkpoints = report_of(run, "proxy").checkpoints
    if not checkpoints:
        raise InputError("the proxy left no checkpoints: set proxy.checkpoint_count to 3 or more.")
    return [CheckpointRef(int(c.step), c.path) for c in checkpoints]


def learning_rates(run: Run) -> dict[int, float] | None:
    """Return the proxy's mean learning rate up to each checkpoint since the one before: LESS's checkpoint weights.

    None without a proxy.
    """
    if run.config.proxy is None:
        return None
    return {int(c.step): float(c.lr) for c in report_of(run, "proxy").checkpoints}
