"""What a model computes, counted: its own code, built from a config alone, runs one row of one picture without any weights.

Parameters are fake tensors, which have sizes and no storage; token ids, grids and masks are real, so that code which looks
at them goes its way. `FlopCounterMode` counts products and convolutions, hooks count the rows that each Linear sees. Of
blocks that are equal and are given equally large tensors one is run and counted for all: 7B take under a second.
Axes: T tokens, R image tokens of a picture, H the decoder's width.
"""

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .forward import decode, embed, on_device
from .products import LINEARS
from .registry import base_component, family_of

# attention by hand, and the kernel that a CPU takes, which the counter does not know
_ATTENTION = ("bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu")
# of such a length, and of twice it, rows are counted: scans go in chunks of a power of two
_LENGTH = 1024


@dataclass(frozen=True)
class Beside:
    """FLOP beside Linears of a picture (vision, connector), or of the decoder a token squared and a token.

    `attention`: products of activations with each other; of the decoder the lower half. `other`: all else, as patches.
    """

    attention: float = 0.0
    other: float = 0.0


@dataclass(frozen=True)
class Counted:
    """`rows`: of each Linear a picture, or of the decoder a token. `order`: how deep blocks lie, and Linears outside.

    `blocks`: names of the blocks that Linears may lie in. `beside` by component. `image_tokens`: of the usual picture.
    """

    rows: dict[str, float]
    order: dict[str, int]
    blocks: tuple[str, ...]
    beside: dict[str, Beside]
    image_tokens: int


def on_meta(config: Any) -> Any:
    """Return the model that a config describes, without weights; attention and experts are written out as products."""
    config = copy.deepcopy(config)
    config._attn_implementation, config._experts_implementation = "eager", "batched_mm"
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # in one type, as it would be loaded: configs of components may name others
        return family_of(config).class_of(config)(config).eval().float()


def count(config: Any, model: Any) -> Counted:
    """Return what a model of `on_meta` computes; it is of no use afterwards. Raises whatever its code does."""
    # what fails is raised, and need not be printed before
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with torch.no_grad():
            return _count(config, model)
    finally:
        log.setLevel(level)


def _count(config: Any, model: Any) -> Counted:
    family, watch = family_of(config), _Watch(model)
    media = family.pictures(config, 1)
    with watch.counting() as seeing:
        seen = family.see(model, media)
    pictures = Counter(watch.rows)
    with watch.counting() as connecting:
        tokens = family.connect(model, seen, media).shape[0]
    pictures += watch.rows
    first = _LENGTH * (tokens // _LENGTH + 1)
    lengths = (first, 2 * first)
    rest = [_rest_of_decoder(watch, config, media, tokens, length) for length in lengths]
    # a·T + b·T² through both; rows of the last pass are of the longer one
    squares = (rest[1] - 2 * rest[0]) / (lengths[1] ** 2 - 2 * lengths[0] ** 2)
    linear = rest[0] / lengths[0] - squares * lengths[0]
    beside = {"vision_tower": seeing, "projector": connecting}
    return Counted(
        rows=dict(pictures) | {name: rows / lengths[1] for name, rows in watch.rows.items()},
        order=_order(watch.order),
        blocks=tuple(watch.blocks),
        beside={component: Beside(*counts.beside) for component, counts in beside.items()}
        | {"language_model": Beside(max(0.0, squares) / 2, max(0.0, linear))},
        image_tokens=tokens,
    )


def _rest_of_decoder(watch: "_Watch", config: Any, media: dict[str, torch.Tensor], shown: int, length: int) -> float:
    """Return the FLOP beside Linears of a row of `length` tokens; `watch.rows` are then the decoder's."""
    family, model = family_of(config), watch.model
    image, word = family.image_id(config), int(family.image_id(config) == 0)
    ids_BT = torch.tensor([[word, *[image] * shown, *[word] * (length - shown - 1)]])
    batch = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "labels": ids_BT, "media": media}
    batch["image_owner"] = torch.zeros(1, dtype=torch.long)
    inputs_BTH, arguments = embed(model, on_device(batch, model, places=False))
    with watch.counting() as counts:
        decode(model, inputs_BTH, arguments)
    return sum(counts.beside)


class _Counts:
    """`beside`: FLOP of attention, and of all else that no Linear's product is; there when the counting has ended."""

    beside: tuple[float, float] = (0.0, 0.0)


class _Watch:
    """Counts what runs through a model on the meta device, whose parameters become fake ones where they are needed."""

    def __init__(self, model: Any) -> None:
        self.model, self.rows, self.order = model, Counter[str](), dict[str, int]()
        self.blocks = _blocks(model)
        self._sizes = {n: 2 * m.weight.numel() for n, m in model.named_modules() if isinstance(m, LINEARS)}
        self._mode, self._fakes = FakeTensorMode(allow_non_fake_inputs=True), dict[int, Any]()
        self._flop, self._counter = Counter[str](), FlopCounterMode(display=False)
        self._block: str | None = None
        self._ran: dict[Any, tuple[str, Any, Counter[str], Counter[str]]] = {}
        inside = {id(m) for block in self.blocks.values() for m in block.modules()}
        for name, module in model.named_modules():
            if isinstance(module, LINEARS):
                module.register_forward_hook(partial(self._linear, name))
            if id(module) not in inside:
                self._pretend(module)
        for name, block in self.blocks.items():
            block.forward = partial(self._run, name, block, block.forward, _signature(block))

    @contextmanager
    def counting(self) -> Iterator[_Counts]:
        """Count anew what runs inside; `rows` by Linear is of it alone."""
        counts, self.rows, self._flop = _Counts(), Counter(), Counter()
        known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
        with FlopCounterMode(display=False, custom_mapping=known) as self._counter:
            yield counts
        flop = self._flop + self._counted()
        products = sum(self._sizes[name] * rows for name, rows in self.rows.items())
        wide = sum(flop[op] for op in _ATTENTION)
        # a Linear without a bias on a view may be a batched product too
        plain = flop["mm"] + flop["addmm"]
        attention = wide - max(0, products - plain)
        counts.beside = (attention, sum(flop.values()) - attention - products)

    def _counted(self) -> Counter[str]:
        """Return the FLOP by operation of this counting so far, without what was counted for equal blocks."""
        by_operation = self._counter.get_flop_counts().get("Global", {})
        return Counter({str(op).rsplit(".", 1)[-1]: n for op, n in by_operation.items()})

    def _linear(self, name: str, module: Any, args: tuple[torch.Tensor, ...], _output: Any) -> None:
        self.rows[name] += args[0].numel() // module.in_features
        self.order.setdefault(self._block or name, len(self.order))

    def _run(self, name: str, block: nn.Module, forward: Callable[..., Any], kind: Any, *args: Any, **more: Any) -> Any:
        """Run a block, or take over what an equal one gave and cost."""
        key = (kind, tuple(_size(leaf) for leaf in tree_leaves((args, more))))
        self.order.setdefault(name, len(self.order))
        if key not in self._ran:
            for module in block.modules():
                self._pretend(module)
            before, rows = self._counted(), Counter(self.rows)
            self._block = name
            output = forward(*args, **more)
            self._block = None
            self._ran[key] = (name, output, self._counted() - before, self.rows - rows)
            return output
        first, output, flop, rows = self._ran[key]
        self._flop += flop
        self.rows.update({name + linear.removeprefix(first): n for linear, n in rows.items()})
        return output

    def _pretend(self, module: nn.Module) -> None:
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or isinstance(tensor, FakeTensor):
                    continue
                if id(tensor) not in self._fakes:
                    fake = FakeTensor(self._mode, tensor.detach().to("meta"), torch.device("cpu"))
                    self._fakes[id(tensor)] = nn.Parameter(fake, False) if isinstance(tensor, nn.Parameter) else fake
                tensors[name] = self._fakes[id(tensor)]


def _order(ran: dict[str, int]) -> dict[str, int]:
    """Return how deep blocks and Linears lie: a connector behind all of vision, though a part may run in its middle."""
    rank = {component: i for i, component in enumerate(("vision_tower", "projector", "language_model"))}
    # what belongs nowhere runs last: the head
    by_depth = sorted(ran, key=lambda name: (rank.get(base_component(f"{name}.") or "", len(rank)), ran[name]))
    return {name: depth for depth, name in enumerate(by_depth)}


def _blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the members of lists of modules by name, of outer lists alone; Linears are no blocks."""
    blocks: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{block}.") for block in blocks):
            blocks |= {f"{name}.{i}": m for i, m in module.named_children() if not isinstance(m, nn.Linear)}
    return blocks


def _signature(block: nn.Module) -> Any:
    """Return what equal blocks have in common: modules, sizes and plain settings, but not which of them they are."""

    def settings(module: nn.Module) -> tuple[Any, ...]:
        plain = {n: v for n, v in vars(module).items() if isinstance(v, int | float | str) and n != "layer_idx"}
        return (type(module), *sorted(plain.items()))

    return (
        tuple((name, settings(module)) for name, module in block.named_modules()),
        tuple((name, tuple(p.shape)) for name, p in block.named_parameters()),
    )


def _size(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return (tuple(leaf.shape), leaf.dtype)
    return leaf if isinstance(leaf, int | float | str | None) else type(leaf)


def _attention(query: Any, key: Any, value: Any, *_more: Any, out_shape: Any = None, **_named: Any) -> int:
    return sdpa_flop_count(query, key, value)
