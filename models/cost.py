"""What a row costs: TFLOP by item, bytes of parameters and activations; from a shape alone, before any model is loaded.

The forward pass is counted on the model's own code (`counting.py`) and goes with a row's pictures, tokens, their square and
its labels. From it follows the way back: a Linear's input gradient costs what its product does, and so does its weight's.
A product of [m, k] and [k, n] is 2·m·k·n operations; element-wise work is left out. Causal attention counts the lower half,
its backward pass 2.5 times the forward one (flash attention makes the scores again). Pads are not counted. Source: spec
LESS §6.3, whose table the test holds these figures to.
"""

from dataclasses import dataclass

from ..store.errors import InputError, suggest
from .shape import HEAD, Dense, Shape
from .specs import logit_rows

PROJECTIONS = ("rademacher", "sjlt", "kron", "targets", "none")
# components that see pictures, and how their items are called
_PICTURES = {"vision_tower": "vision", "projector": "projector"}
VALUE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True)
class RowSize:
    """A mean row: tokens (image tokens included), their mean square, trained tokens, and its number of pictures.

    `shown`: its image tokens, where pictures of other sizes become other numbers of them.
    """

    tokens: float
    squares: float
    labels: float
    images: float
    shown: float | None = None

    def pictures(self, image_tokens: int) -> float:
        """Return its pictures as a number of those that become `image_tokens`."""
        return self.images if self.shown is None else self.shown / image_tokens

    @classmethod
    def fixed(cls, tokens: int, labels: int, image: bool = True) -> "RowSize":
        """A row of a given length."""
        return cls(tokens, tokens**2, labels, float(image))


@dataclass(frozen=True)
class Sketch:
    """A projection in plain values; `dim` is the number of tasks for `targets`; `nonzeros` matters for `sjlt` alone."""

    kind: str
    dim: int
    nonzeros: int = 1


@dataclass(frozen=True)
class Cost:
    """TFLOP per row by item."""

    items: dict[str, float]

    @property
    def total(self) -> float:
        """TFLOP per row."""
        return sum(self.items.values())


def forward_flop(shape: Shape, row: RowSize, head: bool = True) -> Cost:
    """Return what one row's forward pass costs; `head`: with the LM head, which sees trained tokens alone."""
    flop = _forward(shape, row)
    return _cost(flop if head else _without_head(flop))


def trajectory_flop(shape: Shape, row: RowSize) -> Cost:
    """Return what the attention of one row's text costs: text rows × all keys over the whole width; no LM head."""
    text = max(0.0, row.tokens - shape.image_tokens) * row.images
    if row.shown is not None:
        text = max(0.0, row.tokens - row.shown) * min(1.0, row.images)
    own = {"trajectory": shape.counted.beside["language_model"].attention * text * row.tokens}
    return _cost(_without_head(_forward(shape, row)) | own)


def gradient_flop(shape: Shape, row: RowSize, which: str = "projector", sketch: Sketch | None = None) -> Cost:
    """Return what one row's gradient costs, of the Linears `which` names, through a projection.

    Raises:
        InputError: `which` names nothing that the shape has, or the projection is unknown.
    """
    tapped = shape.chosen(which)
    sketch = sketch or Sketch("none", 0)
    if sketch.kind not in PROJECTIONS:
        raise InputError(f"unknown projection {sketch.kind!r}{suggest(sketch.kind, PROJECTIONS)}")
    ends = {"projection": _projection(shape, row, tapped, sketch)}
    if sketch.kind != "kron":  # which never forms a gradient
        ends["per-sample gradients"] = sum(_product(d, shape, row) for d in tapped)
    return _cost(_forward(shape, row) | _backward(shape, row, tapped) | ends)


def training_flop_per_row(shape: Shape, row: RowSize, components: list[str], checkpointing: bool = False) -> Cost:
    """Return what one row costs in training `components`; gradient checkpointing runs the decoder's forward pass twice."""
    forward = _forward(shape, row)
    trained = [d for d in shape.linears if d.component in components]
    # MoReS and IA3 have no Linear of the shape; their gradients come back through the decoder
    items = forward | _backward(shape, row, trained or [d for d in shape.linears if d.place == "language_model"])
    # weights that are no Linear's: patches of pictures, experts
    others = sum(_beside(shape, row, component)[1] for component in components if component in shape.counted.beside)
    items["weight gradients"] = others + sum(_product(d, shape, row) for d in trained)
    if checkpointing:
        items["recomputed fwd"] = sum(forward.get(k, 0) for k in ("linears fwd", "attention fwd", "lora fwd"))
    return _cost(items)


def elements(tapped: list[Dense]) -> int:
    """Return P, the length of an un-projected gradient."""
    return sum(d.elements for d in tapped)


def activation_bytes_per_token(shape: Shape, value_bytes: int = 2, layers: int | None = None) -> int:
    """Return the bytes a token of the decoder keeps for the backward pass, ≈ (8d + 4f) values per layer."""
    return (8 * shape.width + 4 * shape.ffn) * value_bytes * (shape.layers if layers is None else layers)


def logit_bytes(shape: Shape, positions: int, value_bytes: int = 2) -> int:
    """Return what the logits of so many label positions take where losses are read: as many as exist at one time.

    Each is held as the model gives it, as float32, and as float32 once more by the softmax.
    """
    return min(positions, logit_rows(shape.vocab)) * shape.vocab * (value_bytes + 8)


def _forward(shape: Shape, row: RowSize) -> dict[str, float]:
    flop: dict[str, float] = {
        f"{item} fwd": sum(_beside(shape, row, component)) for component, item in _PICTURES.items()
    }
    for dense in shape.linears:
        name = _item(dense) + " fwd"
        flop[name] = flop.get(name, 0.0) + _product(dense, shape, row)
    attention, other = _beside(shape, row, "language_model")
    flop["linears fwd"] = flop.get("linears fwd", 0.0) + other
    flop["attention fwd"] = attention
    return flop


def _without_head(forward: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in forward.items() if k != f"{HEAD} fwd"}


def _backward(shape: Shape, row: RowSize, wanted: list[Dense]) -> dict[str, float]:
    """What the way back to the shallowest wanted Linear costs (dX), weight gradients not included."""
    first = min(d.depth for d in wanted)
    flop: dict[str, float] = {}
    for dense in shape.linears:
        # inside a layer all lie at one depth: it is passed as a whole
        if dense.rows and (dense.depth > first or (dense.in_block and dense.depth == first)):
            name = _item(dense) + " dX"
            flop[name] = flop.get(name, 0.0) + _product(dense, shape, row)
    attention, other = (x * _passed(shape, first, "language_model") for x in _beside(shape, row, "language_model"))
    flop["attention bwd"] = 2.5 * attention
    if other:
        flop["linears dX"] = flop.get("linears dX", 0.0) + other
    for component, item in _PICTURES.items():
        passed = _passed(shape, first, component)
        if passed and f"{item} dX" in flop:
            # what is no attention there makes patches of pictures, before all layers
            flop[f"{item} dX"] += 2.5 * _beside(shape, row, component)[0] * passed
    return flop


def _passed(shape: Shape, first: int, place: str) -> float:
    """Return the share of a component's layers that a gradient passes on its way to depth `first`."""
    depths = {d.depth for d in shape.linears if d.place == place and d.rows}
    return len([d for d in depths if d >= first]) / max(1, len(depths))


def _projection(shape: Shape, row: RowSize, tapped: list[Dense], sketch: Sketch) -> float:
    if sketch.kind == "kron":
        small = max(d for d in range(1, int(sketch.dim**0.5) + 1) if sketch.dim % d == 0)
        large = sketch.dim // small
        sides = sum(2 * _rows(d, shape, row) * (d.outputs * small + d.inputs * large + small * large) for d in tapped)
        return sides + 2 * sum(d.outputs for d in tapped if d.bias) * sketch.dim
    columns = {"rademacher": sketch.dim, "sjlt": sketch.nonzeros, "targets": sketch.dim, "none": 0}[sketch.kind]
    return 2 * elements(tapped) * columns


def _product(dense: Dense, shape: Shape, row: RowSize) -> float:
    return 2 * dense.outputs * dense.inputs * _rows(dense, shape, row)


def _rows(dense: Dense, shape: Shape, row: RowSize) -> float:
    if dense.place in _PICTURES:
        return dense.rows * row.pictures(shape.image_tokens)
    return dense.rows * (row.labels if dense.place == HEAD else row.tokens)


def _beside(shape: Shape, row: RowSize, component: str) -> tuple[float, float]:
    """Return what a component computes beside its Linears: attention, and all else."""
    counted = shape.counted.beside[component]
    if component in _PICTURES:
        pictures = row.pictures(shape.image_tokens)
        return counted.attention * pictures, counted.other * pictures
    return counted.attention * row.squares, counted.other * row.tokens


def _item(dense: Dense) -> str:
    if dense.component == "lora":
        return "lora"
    return {"language_model": "linears"}.get(dense.place, _PICTURES.get(dense.place, dense.place))


def _cost(flop: dict[str, float]) -> Cost:
    return Cost({name: value / 1e12 for name, value in flop.items()})
