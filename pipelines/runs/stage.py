"""What a stage of a run offers; `stages.py` lists a run's stages, and run, plan, status and report go through that list.

No module of a stage loads torch or Ray when it is imported: status and report only read what is on disk.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...store.arrays import Array
from ...store.errors import InputError
from ...store.files import exists, join
from ...store.manifest import Manifest, StageRecord, read_stage
from ..progress import console
from .config import RunConfig

if TYPE_CHECKING:
    from .prices import Price, Prices
    from .samples import Sample

State = Literal["done", "under way", "waiting"]


@dataclass(frozen=True)
class StageStatus:
    """One stage. `rows`, `refused`, `seconds`, `bytes` are None where it has none yet; `detail` says how far it is.

    `seconds`: of all its `starts` that ended well, together; `last_seconds`: of the last, None where older versions did it.
    """

    name: str
    state: State
    rows: int | None = None
    refused: int | None = None
    seconds: float | None = None
    bytes: int | None = None
    detail: str = ""
    starts: int | None = None
    last_seconds: float | None = None


@dataclass(frozen=True)
class Held:
    """Devices × hours of a stage, or devices alone; `cpu` are the cores that Ray kept for it."""

    gpu: float
    cpu: float

    def times(self, factor: float) -> "Held":
        """Return `factor` as much."""
        return Held(self.gpu * factor, self.cpu * factor)

    @staticmethod
    def total(several: "Iterable[Held]") -> "Held":
        """Add up."""
        known = list(several)
        return Held(sum(h.gpu for h in known), sum(h.cpu for h in known))


@dataclass
class Planned:
    """One line of the plan; `bytes` is what it leaves on disk, `steps` optimizer steps; `price` where it computes.

    `stage`: the line's name; `within`: the run's stage that it is a part of; `choosing`: as that says. `note`: what one
    should know of its rows. `devices`: GPUs or CPU workers that share the work, as `on` says. `state`: "done",
    "to do", or how much is there ("2 of 6 trials"); `left`: the share of price, steps and bytes that is still to come,
    0 to 1. `count`: how many trainings the figures are of. `questions`: what models are asked, each question once a model;
    `questions_left`: those still to be asked.
    """

    stage: str
    what: str
    rows: int
    steps: int = 0
    bytes: int = 0
    on: str = ""
    done: bool = False
    state: str = "to do"
    left: float = 1.0
    questions: int = 0
    questions_left: int = 0
    price: "Price | None" = None
    config: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    devices: int = 1
    within: str = ""
    choosing: bool = False
    count: int = 1

    def stands(self, there: int, of: int, unit: str = "", left: float | None = None) -> None:
        """Say that `there` of `of` are there; `left`: the share of the price that is not, where it is another one."""
        self.done = there >= of
        self.state = "done" if self.done else f"{there:,} of {of:,} {unit}" if there else "to do"
        self.left = (0.0 if self.done else 1 - there / of) if left is None else left

    def times(self, n: int) -> None:
        """Count the line `n` times over (a sweep's seeds)."""
        self.count *= n
        self.steps, self.bytes = self.steps * n, self.bytes * n
        if self.price is not None:
            self.price = replace(self.price, tflop=self.price.tflop * n, hours=self.price.hours * n)


@dataclass(frozen=True)
class Questions:
    """The test pool that a run has, or is to have: its digest, and its ids (u64 [N])."""

    digest: str
    ids: Array


@dataclass(frozen=True)
class Planning:
    """What a plan is made with: samples of the pools by name, and prices, whose model is what the stage begins with.

    `questions`: None where no test pool is there; `longer`: they are of a test set that takes the place of a shorter one.
    """

    samples: "dict[str, Sample]"
    prices: "Prices"
    questions: Questions | None = None
    longer: bool = False

    def rows(self, pool: str) -> int:
        """Return the rows of a pool."""
        return self.samples[pool].rows


@dataclass(frozen=True)
class Item:
    """One thing that a stage makes and keeps: a whole stage's result, one choice's picks, one trial.

    `settings`: section of the run's config → the fields from which its numbers follow; what only says where and how fast is
    left out. `pace`: the same of fields that are free unless it is under way. `needs`: the items that it is made of.
    """

    key: str
    settings: dict[str, Any]
    needs: tuple[str, ...] = ()
    pace: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """A run under way: its config and its manifests. What stages hand each other they read from its folder."""

    config: RunConfig
    manifest: Manifest

    @property
    def out(self) -> str:
        """The run's folder."""
        return self.config.out

    def folder(self, *names: str) -> str:
        """Return a place inside the run's folder."""
        return join(self.out, *names)

    def stage(self, name: str, inputs: dict[str, Any], work: Callable[[StageRecord], None]) -> StageRecord:
        """Do a stage unless it is done.

        Raises:
            InputError: it was done with other inputs; names them.
        """
        changed = self.manifest.changed(name, inputs)
        if changed:
            raise InputError(
                f"{self.out}: stage {name!r} was done with other inputs ({'; '.join(changed)}). "
                f"Use another `out`, or delete that folder to begin again."
            )
        if changed is None:
            with self.manifest.stage(name, inputs) as record:
                work(record)
        return self.say(name, new=changed is None)

    def say(self, name: str, new: bool) -> StageRecord:
        """Say that a stage is done, now or before; returns its record."""
        done = self.manifest.read(name)
        assert done is not None
        several = f", {in_all(done)}" if done.starts > 1 else ""
        last = done.seconds if done.last_seconds is None else done.last_seconds
        console.print(f"[dim]{'done   ' if new else 'already'}[/] {name:<22} {last:8.1f} s{several}")
        usage = done.usage()
        if usage is not None and (usage.refused or new):
            tell(usage.line())
        return done


@dataclass(frozen=True)
class Stage(ABC):
    """One stage of a run, as its config says it; `name` is that of its manifest.

    `choosing`: what it costs is a price of choosing, which training on everything would not pay.
    """

    run_config: RunConfig
    choosing: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """What its manifest, the plan, status and the report call it."""

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The stages whose results it reads, by name."""

    @abstractmethod
    def estimate(self, planning: Planning) -> list[Planned]:
        """Return what it would do, and at what price: one line or more. Nothing is written."""

    def stand(self, lines: list[Planned], planning: Planning) -> None:
        """Say in its lines of the plan what of them is there."""
        for line in lines:
            line.stands(int(self.is_done()), 1)

    def is_done(self) -> bool:
        """Say whether all that it makes is there, by its manifest."""
        path = manifest_path(self.run_config.out, self.name)
        return exists(path) and self.finished(read_stage(path), path)

    def check(self, run: Run) -> None:  # noqa: B027
        """Refuse what cannot end well as soon as the pools are there, before any device is taken.

        Raises:
            InputError: says what to change.
        """

    @abstractmethod
    def run(self, run: Run) -> None:
        """Do it, unless it is done.

        Raises:
            InputError: it was done with other inputs.
        """

    @abstractmethod
    def progress(self, run_dir: str) -> StageStatus:
        """Say from disk how far it is, where it is not done."""

    def items(self) -> list[Item]:
        """Return what it makes one by one, by the config alone: a run that grows makes those that are not there."""
        return [Item(self.name, self.settings(), self.needs)]

    def settings(self) -> dict[str, Any]:
        """Return section → fields from which its numbers follow."""
        return {}

    def states(self, run_dir: str) -> dict[str, State]:
        """Return the items of which something is there, by key: done, or under way."""
        state = "done" if exists(manifest_path(run_dir, self.name)) else self.progress(run_dir).state
        return {} if state == "waiting" else {self.name: state}

    def finished(self, record: StageRecord, path: str) -> bool:
        """Say whether a stage with this manifest, read from `path`, has made all of its items."""
        return True

    def held(self, record: StageRecord, results: list[dict[str, Any]]) -> Held | None:
        """Return what it held, in hours; None where Ray gave it nothing. `results`: the sweep's trials."""
        return None

    def line(self, name: str, what: str, rows: int, config: Any) -> Planned:
        """Return a line of the plan, with the config that would be received."""
        run = self.run_config
        extra = {"seed": run.seed, "out": run.out, "ray": run.ray.model_dump()}
        tree = config.model_dump(mode="json") | {"run": extra}
        return Planned(name, what, rows, config=tree, within=self.name, choosing=self.choosing)

    def begun(self, known: bool, detail: str) -> StageStatus:
        """Return the status of a stage that is not done, with what its folder says."""
        return StageStatus(self.name, "under way" if known else "waiting", detail=detail if known else "")


def manifest_path(run_dir: str, name: str) -> str:
    """Return where a stage's manifest lies."""
    return join(run_dir, "stages", f"{name}.json")


def in_all(done: StageRecord) -> str:
    """Return what all starts of a stage took together, in words."""
    return f"{done.seconds:,.1f} s in {done.starts} starts"


def tell(what: str) -> None:
    """Say something of a stage, below its line."""
    console.print(f"        {what}", markup=False, soft_wrap=True)
