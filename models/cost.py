"""What a row costs: TFLOP by item, bytes of parameters and activations; from a shape alone, before any model is loaded.

A product of [m, k] and [k, n] is 2·m·k·n operations; element-wise work is left out. Causal attention counts the lower half,
its backward pass 2.5 times the forward one (flash attention makes the scores again). Pads are not counted. Source: spec
LESS §6.3, whose table the test holds these formulas to.
"""

from dataclasses import dataclass

from ..store.errors import InputError, suggest
from .shape import HEAD, Dense, Shape

PROJECTIONS = ("rademacher", "sjlt", "kron", "targets", "none")
VALUE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True)
class RowSize:
    """A mean row: tokens (image tokens included), their mean square, trained tokens, and its number of pictures."""

    tokens: float
    squares: float
    labels: float
    images: float

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
    """TFLOP a row by item."""

    items: dict[str, float]

    @property
    def total(self) -> float:
        """TFLOP a row."""
        return sum(self.items.values())


def forward_flop(shape: Shape, row: RowSize, head: bool = True) -> Cost:
    """Return what one row's forward pass costs; `head`: with the LM head, which sees trained tokens alone."""
    flop = _forward(shape, row)
    return _cost(flop if head else _without_head(flop))


def trajectory_flop(shape: Shape, row: RowSize) -> Cost:
    """Return what the attention of one row's text costs: text rows × all keys over the whole width; no LM head."""
    text = max(0.0, row.tokens - shape.image_tokens) * row.images
    own = {"trajectory": 2 * text * row.tokens * shape.query_width * shape.layers}
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


def training_flop_per_row(shape: Shape, row: RowSize, parts: list[str], checkpointing: bool = False) -> Cost:
    """Return what one row costs in training `parts`; gradient checkpointing runs the decoder's forward pass twice."""
    forward = _forward(shape, row)
    trained = [d for d in shape.linears if d.part in parts]
    # MoReS and IA3 have no Linear of the shape; their gradients come back through the decoder
    items = forward | _backward(shape, row, trained or [d for d in shape.linears if d.place == "language_model"])
    items["weight gradients"] = sum(_product(d, shape, row) for d in trained)
    if checkpointing:
        items["recomputed fwd"] = sum(forward.get(k, 0) for k in ("linears fwd", "attention fwd", "lora fwd"))
    return _cost(items)


def elements(tapped: list[Dense]) -> int:
    """Return P, the length of an un-projected gradient."""
    return sum(d.elements for d in tapped)


def activation_bytes_per_token(shape: Shape, value_bytes: int = 2, layers: int | None = None) -> int:
    """Return the bytes a token of the decoder keeps for the backward pass, ≈ (8d + 4f) values a layer."""
    return (8 * shape.width + 4 * shape.ffn) * value_bytes * (shape.layers if layers is None else layers)


def _forward(shape: Shape, row: RowSize) -> dict[str, float]:
    flop: dict[str, float] = {"vision fwd": _tower_attention(shape, row) + _patches(shape, row)}
    for dense in shape.linears:
        name = _item(dense) + " fwd"
        flop[name] = flop.get(name, 0.0) + _product(dense, shape, row)
    flop["attention fwd"] = _attention(shape, row)
    return flop


def _without_head(forward: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in forward.items() if k != f"{HEAD} fwd"}


def _backward(shape: Shape, row: RowSize, wanted: list[Dense]) -> dict[str, float]:
    """What the way back to the shallowest wanted Linear costs (dX), weight gradients not included."""
    first = min(d.depth for d in wanted)
    flop: dict[str, float] = {}
    for dense in shape.linears:
        # inside a layer of tower or decoder all lie at one depth: it is passed as a whole
        is_layer = dense.place in ("vision_tower", "language_model")
        if dense.depth > first or (is_layer and dense.depth == first):
            name = _item(dense) + " dX"
            flop[name] = flop.get(name, 0.0) + _product(dense, shape, row)
    passed = _layers_passed(shape, first, "language_model", shape.layers)
    flop["attention bwd"] = 2.5 * _attention(shape, row) * passed
    tower = _layers_passed(shape, first, "vision_tower", shape.vision_layers)
    if tower:
        flop["vision dX"] += 2.5 * _tower_attention(shape, row) * tower
    return flop


def _layers_passed(shape: Shape, first: int, place: str, layers: int) -> float:
    return len({d.depth for d in shape.linears if d.place == place and d.depth >= first}) / layers


def _projection(shape: Shape, row: RowSize, tapped: list[Dense], sketch: Sketch) -> float:
    if sketch.kind == "kron":
        small = max(d for d in range(1, int(sketch.dim**0.5) + 1) if sketch.dim % d == 0)
        large = sketch.dim // small
        sides = sum(2 * _tokens(d, shape, row) * (d.outputs * small + d.inputs * large + small * large) for d in tapped)
        return sides + 2 * sum(d.outputs for d in tapped if d.bias) * sketch.dim
    columns = {"rademacher": sketch.dim, "sjlt": sketch.nonzeros, "targets": sketch.dim, "none": 0}[sketch.kind]
    return 2 * elements(tapped) * columns


def _product(dense: Dense, shape: Shape, row: RowSize) -> float:
    return 2 * dense.outputs * dense.inputs * _tokens(dense, shape, row)


def _tokens(dense: Dense, shape: Shape, row: RowSize) -> float:
    seen = {
        "vision_tower": shape.vision_tokens * row.images,
        "projector": shape.image_tokens * row.images,
        "language_model": row.tokens,
        HEAD: row.labels,
    }
    return seen[dense.place]


def _attention(shape: Shape, row: RowSize) -> float:
    return 2 * row.squares * shape.query_width * shape.layers


def _tower_attention(shape: Shape, row: RowSize) -> float:
    return 4 * shape.vision_tokens**2 * shape.vision_width * shape.vision_layers * row.images


def _patches(shape: Shape, row: RowSize) -> float:
    return 2 * (shape.vision_tokens - 1) * shape.patch_inputs * shape.vision_width * row.images


def _item(dense: Dense) -> str:
    if dense.part == "lora":
        return "lora"
    return {"vision_tower": "vision", "language_model": "linears"}.get(dense.place, dense.place)


def _cost(flop: dict[str, float]) -> Cost:
    return Cost({name: value / 1e12 for name, value in flop.items()})
