"""What the stages of a run cost: operations, GPU-hours at a measured rate, GPU memory; counted, for sampled rows.

Memory is a lower estimate: weights, optimizer state and activations of the largest batch, without the allocator's waste.
"""

from dataclasses import dataclass, field, replace
from typing import Any, cast

from ...actors.config import FeatureConfig
from ...actors.kind import Held, kind_of
from ...models.adapters import target_regex
from ...models.cost import VALUE_BYTES, Cost, activation_bytes_per_token, training_flop_per_row
from ...models.encoding import make_encoder
from ...models.family.of_llava.tiny import SPECIALS, tiny_model_config
from ...models.load import load_processor
from ...models.shape import Shape, UnknownShapeError, read_shape, shape_of
from ...models.specs import TinyModelConfig
from ...store.files import exists, join
from ...train.recipe import TrainRecipe
from .config import RunConfig
from .rates import PlanConfig, Rate, load_rates, rate_for
from .samples import Measured, Sample, encode_sizes, estimate_sizes


@dataclass
class Price:
    """A stage's cost: per row `tokens` and `row` (TFLOP by item); `tflop`, `hours` of one GPU, `memory` (bytes per GPU).

    `how`: where tokens and rate come from, or why there is no price (then `row` is empty).
    """

    tokens: float
    row: dict[str, float]
    tflop: float
    hours: float
    memory: int
    how: list[str] = field(default_factory=list)


class Prices:
    """Prices a run's stages in order; `shape` follows the model through them (a LoRA training makes an adapter)."""

    def __init__(self, run: RunConfig, samples: dict[str, Sample]) -> None:
        built = join(run.out, "twin")
        folder = run.model.path or (built if exists(join(built, "config.json")) else None)
        self._begin(folder, run.model.twin, run.plan, samples)

    @classmethod
    def of_model(cls, folder: str, samples: dict[str, Sample]) -> "Prices":
        """Return the same for a model's folder, outside a run."""
        prices = cls.__new__(cls)
        prices._begin(folder, None, PlanConfig(), samples)
        return prices

    def _begin(
        self, folder: str | None, twin: TinyModelConfig | None, plan: PlanConfig, samples: dict[str, Sample]
    ) -> None:
        self.folder, self.plan, self.samples = folder, plan, samples
        self.rates: list[Rate] = load_rates(plan)
        self.shape: Shape | None = None
        self._none = Price(0, {}, 0, 0, 0)
        try:
            self.shape = read_shape(self.folder) if self.folder else tiny_model_shape(twin)
        except UnknownShapeError as error:
            self._none.how.append(f"no price: {error}")
        self._seen: dict[tuple[Any, ...], Measured] = {}

    def training(self, config: TrainRecipe, pool: str, rows: int) -> Price:
        """Price `rows` rows through a training of `config`."""
        if self.shape is None:
            return self._none
        shape = self.after(config)
        measured = self.rows(config, pool)
        cost = training_flop_per_row(shape, measured.row, list(config.parts), config.gradient_checkpointing)
        memory = _training_memory(shape, config, measured)
        rate = rate_for(self.rates, "training", None, config.zero_stage)
        return self._price(config.precision, rate, measured, cost, rows, memory)

    def feature(self, config: FeatureConfig, pool: str, points: int, proxy: TrainRecipe | None) -> Price:
        """Price a feature of every row of a pool at `points` checkpoints of the proxy; without one, at the model itself."""
        if self.shape is None:
            return self._none
        shape = self.after(proxy) if proxy is not None else self.shape
        kind, measured, tasks = kind_of(config), self.rows(config, pool), self._tasks(config)
        cost = kind.cost(shape, measured.row, tasks)
        models = min(config.checkpoints_per_pass, points)
        held = Held(
            min(config.max_rows, max(1, config.token_budget // measured.longest)), measured.longest, models, tasks
        )
        memory = _weights(shape, config, models, list(proxy.parts) if proxy is not None else [])
        rows: float = self.samples[pool].rows
        if kind.aims:  # the targets' mean gradients take two passes over them
            aim = kind.cost(shape, self.rows(config, "target").row, tasks)
            rows += 2 * self.samples["target"].rows * aim.total / cost.total
        rate = rate_for(self.rates, kind.work, kind.projection)
        memory += kind.memory(shape, held)
        return self._price(config.precision, rate, measured, cost, rows * points, memory)

    def advance(self, config: TrainRecipe) -> None:
        """Go on with the model that a training makes."""
        if self.shape is not None:
            self.shape = self.after(config)

    def dim(self, config: FeatureConfig) -> int:
        """Return the width of a feature; that of influence is the number of tasks among the sampled targets.

        0 for an embedding of a model without a price.
        """
        return kind_of(config).dim(lambda: self.shape.width if self.shape is not None else 0, self._tasks(config))

    def after(self, config: TrainRecipe) -> Shape:
        """Return the shape of the model that a training makes."""
        assert self.shape is not None
        if config.mores is not None:
            count = config.mores.parameters(self.shape.layers, self.shape.width)
            return replace(self.shape, added=("mores", count))
        if config.peft is not None:
            rank = config.peft.numbers()[0]
            if config.peft.method in ("lora", "dora") and rank is not None:
                names = config.peft.targets
                return self.shape.with_lora(rank, names and target_regex(names, self.shape.decoder_name))
            blocks = (d for d in self.shape.linears if d.place == "language_model")
            count = config.peft.parameters((d.name.rsplit(".", 1)[-1], d.outputs, d.inputs) for d in blocks)
            return replace(self.shape, added=("lora", count))
        return self.shape if config.lora is None else self.shape.with_lora(config.lora.r, config.lora.targets)

    def disk(self, config: TrainRecipe, steps: int) -> int:
        """Return the bytes that a training leaves: its model, the proxy checkpoints, and the last two resumable states."""
        if self.shape is None:
            return 0
        parameters, value = self.after(config).parameters(), VALUE_BYTES[config.precision]
        # with LoRA or MoReS a folder holds what was trained, not the base
        kept = config.parts if config.lora or config.peft or config.mores else parameters
        folder = sum(parameters[p] for p in kept) * value
        point = folder
        if config.checkpoint_weights == "trained":
            point = sum(parameters[p] for p in config.parts) * VALUE_BYTES["bfloat16"]
        # Adam's moments beside each proxy checkpoint are float32
        moments = 8 * sum(parameters[p] for p in config.parts) if config.save_moments else 0
        state = sum(parameters.values()) * value + _optimizer(config, parameters)
        states, points = min(2, (steps - 1) // config.resume_steps), len(config.kept_checkpoints(steps))
        return folder + points * (point + moments) + states * state

    def rows(self, config: TrainRecipe | FeatureConfig, pool: str) -> Measured:
        """Return the rows of a pool as a stage would encode them."""
        key = (pool, config.template, config.max_len)
        if key not in self._seen:
            sample = self.samples[pool]
            if self.folder is None:
                assert self.shape is not None
                measured = estimate_sizes(sample, config.template, config.max_len, self.shape.image_tokens)
            else:
                text = (config.template, config.max_len, config.image_mode, config.pictures)
                encoder = make_encoder(load_processor(self.folder), *text)
                measured = encode_sizes(sample, encoder)
            self._seen[key] = measured
        return self._seen[key]

    def _tasks(self, config: FeatureConfig) -> int:
        """Return how many tasks a feature is measured against; 0 for one that has no aim."""
        return len({r.task for r in self.samples["target"].records}) if kind_of(config).aims else 0

    def _price(self, precision: str, rate: Rate, measured: Measured, cost: Cost, rows: float, memory: float) -> Price:
        speed, how = self._speed(rate, precision)
        total, row = cost.total * rows, {k: float(f"{v:.4g}") for k, v in cost.items.items()}
        lines = [f"tokens: {measured.how}", f"GPU-hours: {how}"]
        return Price(measured.row.tokens, row, total, total / speed / 3600, int(memory), lines)

    def _speed(self, rate: Rate, precision: str) -> tuple[float, str]:
        if self.plan.tflops is not None:
            return self.plan.tflops, f"one GPU at the {self.plan.tflops:g} TFLOP/s of plan.tflops"
        how = f"one {rate.gpu} at the measured {rate.tflops:.0f} TFLOP/s ({rate.precision}; {rate.measured}; {rate.source})"
        if precision != rate.precision:
            how += f"; in {precision}, as configured, it takes longer"
        return rate.tflops, how


def tiny_model_shape(config: TinyModelConfig | None) -> Shape:
    """Return the shape that a twin will have, its vocabulary filled to what it may hold."""
    assert config is not None
    return shape_of(tiny_model_config(config, cast(Any, _Words(config.vocab))))


class _Words:
    """Stands for a tokenizer that is not trained yet: `vocab` words, the special ones first."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 3

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab

    def __len__(self) -> int:
        return self.vocab

    def convert_tokens_to_ids(self, token: str) -> int:
        return SPECIALS.index(token)


def _training_memory(shape: Shape, config: TrainRecipe, measured: Measured) -> float:
    parameters, value = shape.parameters(), VALUE_BYTES[config.precision]
    trained = sum(parameters[p] for p in config.parts)
    share = [config.workers if config.zero_stage >= s else 1 for s in (1, 2, 3)]
    kept = (
        _optimizer(config, parameters) / share[0]
        + trained * value / share[1]
        + sum(parameters.values()) * value / share[2]
    )
    tokens = config.micro_batch * measured.longest
    if config.gradient_checkpointing:  # every layer's input, and one layer opened at a time
        return kept + tokens * (shape.width * value * shape.layers + activation_bytes_per_token(shape, value, 1))
    logits = config.micro_batch * measured.row.labels * shape.vocab * (value + 8)
    return kept + tokens * activation_bytes_per_token(shape, value) + logits


def _optimizer(config: TrainRecipe, parameters: dict[str, int]) -> int:
    """Bytes of AdamW's two moments in float32, and under ZeRO of a float32 copy of what it updates."""
    return sum(parameters[p] for p in config.parts) * (12 if config.zero_stage else 8)


def _weights(shape: Shape, config: FeatureConfig, models: int, differing: list[str]) -> float:
    """Bytes of the weights of `models` checkpoints, which share all but the differing parts."""
    parameters = shape.parameters()
    own = sum(parameters[p] for p in differing)
    return (sum(parameters.values()) + (models - 1) * own) * VALUE_BYTES[config.precision]
