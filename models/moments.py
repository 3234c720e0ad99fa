"""Adam's moments of a checkpoint by canonical parameter name, from any optimizer file: what preconditions gradients.

Read are our `moments.safetensors`, Hugging Face's `optimizer.pt`/`optimizer.bin` by index or (FSDP, full state) by name,
and DeepSpeed's folders of stages 0 to 3. Every shape is checked; LESS's own code reads only name-keyed files (spec LESS
§1.2), and ICONS' mistakes rank order for parameter order (§2.1).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..store.errors import InputError
from ..store.files import is_uri
from ..store.reading import check_path, reading
from . import registry
from .components import canonical
from .folders import MOMENTS, find_folder
from .moment_files import KINDS, StoredState, read_state, torch_file
from .moment_zero import MODELS, SHARDS, model_file, read_zero, zero_files
from .tensors import header, refuse_misfits

_FILES = (MOMENTS, "optimizer.pt", "optimizer.bin")
_WRAPPERS = re.compile(
    r"_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|_orig_mod\.|\bmodule\.|base_model\.model\."
)


@dataclass(frozen=True)
class Moments:
    """Adam's first and second moments by canonical name, float32 (float64 if stored so), each in its parameter's shape.

    `step` counts the optimizer steps behind them; `own_steps` holds parameters with fewer (no gradient at some steps, as
    the projector at text-only ones). `digest` names the files' content.
    """

    exp_avg: dict[str, torch.Tensor]
    exp_avg_sq: dict[str, torch.Tensor]
    step: int
    betas: tuple[float, float]
    eps: float
    digest: str
    own_steps: dict[str, int] = field(default_factory=dict)


def load_moments(
    path: str | Path,
    shapes: Mapping[str, torch.Size],
    order: Iterable[str] | Mapping[str, torch.Size] | None = None,
    device: str | torch.device = "cpu",
    known: Mapping[str, torch.Size] | None = None,
) -> Moments:
    """Load the moments of the parameters in `shapes` (canonical name → shape) from a file or a checkpoint's folder.

    `order`: canonical names of all parameters that were trained, in `named_parameters()` order, for files keyed by index;
    with their shapes, more is checked. None: those in `shapes` were all. `known`: all of the model's parameters; moments of
    others are refused.

    Raises:
        InputError: no such state, damaged, not Adam's, ambiguous, a parameter is missing, unknown or has another shape.
    """
    state = find_state(path)
    stored = _read(state, shapes, order)
    names = _match(stored.names, shapes, str(state))
    if known is not None:
        _refuse_unknown(stored, known, str(state))
    moments: dict[str, dict[str, torch.Tensor]] = {k: {} for k in KINDS}
    steps = {}
    for name, shape in shapes.items():
        entry = stored.entry(names[name])
        for kind in KINDS:
            moments[kind][name] = _checked(entry.get(kind), name, shape, f"{str(state)!r}, {kind}").to(device)
        steps[name] = _step(entry, stored, f"{str(state)!r}, {name}")
    last = max(steps.values())
    betas, eps = _settings(stored, str(state))
    own = {n: s for n, s in steps.items() if s != last}
    return Moments(moments[KINDS[0]], moments[KINDS[1]], last, betas, eps, state_digest(state), own)


def save_moments(
    file: str | Path,
    exp_avg: Mapping[str, torch.Tensor],
    exp_avg_sq: Mapping[str, torch.Tensor],
    step: int,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Write moments by canonical name, in the format that `load_moments` needs no order for."""
    tensors = {f"{KINDS[0]}/{n}": t.contiguous() for n, t in exp_avg.items()}
    tensors |= {f"{KINDS[1]}/{n}": t.contiguous() for n, t in exp_avg_sq.items()}
    save_file(tensors, str(file), {"step": str(step), "betas": json.dumps(list(betas)), "eps": json.dumps(eps)})


def find_state(path: str | Path) -> Path:
    """Return the optimizer's file, or DeepSpeed's folder of one step, that a path or a checkpoint folder means.

    Raises:
        InputError: there is none, or several.
    """
    path = (is_uri(path) and find_folder(path)) or Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"no optimizer state at {str(path)!r}: there is no such file or folder.")
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    latest = path / "latest"  # DeepSpeed's pointer to the last step's folder
    within = [path / _latest(latest)] if latest.is_file() else sorted(p for p in path.iterdir() if p.is_dir())
    holders = [p for p in (path, *within) if any(p.glob(SHARDS)) or any(p.glob(MODELS))]
    if len(holders) > 1 and path not in holders:
        raise InputError(f"{str(path)!r} holds several steps: {[p.name for p in holders]}. Name the folder of one.")
    if not holders:
        raise InputError(
            f"{str(path)!r} holds no optimizer state: neither {', '.join(_FILES)} nor a DeepSpeed checkpoint. Train with "
            "save_moments: true, name its file or folder, or take gradients in mode sgd or sign, which need none."
        )
    return holders[0]


def _latest(file: Path) -> str:
    with reading(file, "DeepSpeed's note of its last step"):
        return Path(check_path(file.read_text().strip())).name


def state_digest(path: str | Path) -> str:
    """Digest the content of the files that moments are read from: 16 hexadecimal digits. Errors as `find_state`."""
    state = find_state(path)
    h = blake2b(digest_size=8)
    for file in [state] if state.is_file() else zero_files(state) or [model_file(state)]:
        h.update(file.name.encode())
        with file.open("rb") as source:
            while block := source.read(1 << 24):
                h.update(block)
    return h.hexdigest()


def _read(state: Path, shapes: Mapping[str, torch.Size], order: Any) -> StoredState:
    if state.suffix == ".safetensors":
        return _read_ours(state)
    if state.is_dir() and zero_files(state):
        return read_zero(state)
    file = model_file(state) if state.is_dir() else state
    values = torch_file(file)
    if state.is_dir():
        values = values.get("optimizer") or {}  # DeepSpeed without ZeRO keeps it beside the weights
    return read_state(values, shapes, order, repr(str(file)))


def _read_ours(file: Path) -> StoredState:
    sizes = header(file)
    source: Any = safe_open(str(file), "pt")
    facts = source.metadata() or {}
    if not {"step", "betas", "eps"} <= set(facts):
        raise InputError(f"{str(file)!r} was not written as moments: its metadata lacks step, betas or eps.")
    keys = set(sizes)
    first, second = ({k.split("/", 1)[1]: sizes[k] for k in keys if k.startswith(f"{kind}/")} for kind in KINDS)
    others = keys - {f"{kind}/{name}" for kind, names in zip(KINDS, (first, second), strict=True) for name in names}
    refuse_misfits(f"{str(file)!r}: {KINDS[1]}", second | {k: sizes[k] for k in others}, first)

    def entry(name: str) -> dict[str, Any]:
        wanted = {k: f"{k}/{name}" for k in KINDS}
        return {k: source.get_tensor(v) for k, v in wanted.items() if v in keys} | {"step": step}

    with reading(file, "moments"):
        group = {"betas": [float(b) for b in json.loads(facts["betas"])], "eps": float(facts["eps"])}
        step = int(facts["step"])
    return StoredState(sorted(first), entry, [group], first)


def plain_name(name: str) -> str:
    """Reduce a parameter's name to what every wrapper and version of its model shares, from its component on."""
    return registry.plain_name(canonical(_WRAPPERS.sub("", name)))


def _match(names: Iterable[str], wanted: Iterable[str], where: str) -> dict[str, str]:
    """Return the file's name of each wanted one."""
    there: dict[str, str] = {}
    for name in names:
        key = plain_name(name)
        if key in there:
            raise InputError(f"{where!r} holds two entries of one parameter: {there[key]!r} and {name!r}.")
        there[key] = name
    absent = [n for n in wanted if plain_name(n) not in there]
    if absent:
        near = [there[k] for k in get_close_matches(plain_name(absent[0]), there, n=3, cutoff=0.0)]
        raise InputError(
            f"{where!r} has no moments of {absent[0]!r} ({len(absent)} missing in all); nearest: {near}. "
            "Only parameters that were trained have moments: tap those, or use mode sgd or sign."
        )
    return {n: there[plain_name(n)] for n in wanted}


def _refuse_unknown(stored: StoredState, known: Mapping[str, torch.Size], where: str) -> None:
    mine = {plain_name(n): tuple(s) for n, s in known.items()}
    extra = [n for n in stored.names if plain_name(n) not in mine]
    sized = {plain_name(n): (n, tuple(s)) for n, s in stored.sizes.items()}
    other = [f"{n} {list(s)} for {list(mine[p])}" for p, (n, s) in sized.items() if p in mine and s != mine[p]]
    if extra or other:
        raise InputError(
            f"{where!r} is of another model: moments that fit nothing: {extra[:5]}; of another shape: {other[:5]}."
        )


def _checked(moment: Any, name: str, shape: torch.Size, where: str) -> torch.Tensor:
    if not isinstance(moment, torch.Tensor):
        raise InputError(f"{where}: {name} has none, so this is no Adam's state. Use mode sgd or sign.")
    if moment.shape != torch.Size(shape):
        raise InputError(f"{where}: {name} has shape {list(moment.shape)}, the model's has {list(shape)}.")
    if not bool(moment.isfinite().all()) or (where.endswith(KINDS[1]) and bool((moment < 0).any())):
        raise InputError(f"{where}: {name} has values that are not finite, or squares below 0: the state is damaged.")
    # a copy, so that the mapped file can be let go
    return moment.detach().to(torch.promote_types(moment.dtype, torch.float32), copy=True).contiguous()


def _step(entry: Mapping[str, Any], stored: StoredState, where: str) -> int:
    # fused Adams count once a group
    step = entry.get("step", next((g["step"] for g in stored.groups if "step" in g), None))
    if step is None:
        raise InputError(f"{where}: the optimizer's state does not tell its step.")
    return int(step)


def _settings(stored: StoredState, where: str) -> tuple[tuple[float, float], float]:
    settings = {(tuple(float(b) for b in g["betas"]), float(g["eps"])) for g in stored.groups if "betas" in g}
    if len(settings) != 1:
        raise InputError(f"{where!r}: one pair of betas and one eps are needed, found {sorted(settings)}.")
    (betas, eps) = settings.pop()
    return (betas[0], betas[1]), eps
