"""PEFT adapters from disk, every tensor accounted for; LLaVA's own LoRA folders are renamed to Hugging Face's modules.

PEFT itself drops names that fit nothing and leaves others as they were drawn. Three layouts of names are known: today's,
that of transformers 4 (`language_model.model.layers`), and LLaVA's, whose LoRA sits on a bare language model
(`model.layers`, `model.mm_projector.0`; spec: LLaVA §6, §9). Where names are translated, so are the config's
targets and patterns, which were written for them.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..store.errors import InputError
from ..store.facts import read_as
from .components import canonical
from .folders import ADAPTER, ADAPTER_BIN, ADAPTER_WEIGHTS, NON_LORA, NON_LORA_BIN, NON_LORA_NAMES, read_object
from .protocol import Layout
from .registry import family_of
from .tensors import put_tensors, read_tensors, refuse_misfits, shapes_of

_FRONT = "base_model.model."


def put_adapter(model: Any, folder: Path) -> Any:
    """Wrap a LLaVA with the adapter of a folder, and put what was trained beside it (the projector) into the LLaVA.

    Raises:
        InputError: a tensor fits nothing, is missing or has another shape; two files that differ; a config that PEFT
            does not take, or whose patterns match nothing.
    """
    from peft import set_peft_model_state_dict

    file = adapter_file(folder)
    meta = next(model.parameters()).is_meta
    tensors = read_tensors(file, meta)
    state = {modern(n, model): t for n, t in tensors.items()}
    if len(state) != len(tensors):
        raise InputError(f"{str(file)!r} holds several tensors of one name in different layouts.")
    config = _config(folder)
    layout = _layout(tensors, model, str(file))
    if layout is not None:
        _translate(config, model, layout.alias)
    put_others(model, folder, needed=layout is not None and layout.beside)
    wrapped = _wrap(model, config, folder)
    _refuse_patterns(wrapped, config, folder)
    wanted, beside = _saved(wrapped)
    refuse_misfits(repr(str(file)), shapes_of(state.items()), wanted, beside)
    if meta:
        return wrapped
    result = set_peft_model_state_dict(wrapped, state)
    # PEFT's own account of what it did, after ours
    lost = list(result.unexpected_keys)
    left = [n for n in result.missing_keys if n.replace(".default", "") in wanted]
    if lost or left:
        raise InputError(f"{str(file)!r}: PEFT found no place for {lost[:5]}, and nothing for {left[:5]}.")
    return wrapped.eval()


def adapter_file(folder: Path) -> Path:
    """Return the file of an adapter's weights.

    Raises:
        InputError: there is none, or two that differ.
    """
    new, old = folder / ADAPTER_WEIGHTS, folder / ADAPTER_BIN
    if not new.is_file() and not old.is_file():
        raise InputError(f"{str(folder)!r} has {ADAPTER}, but neither {ADAPTER_WEIGHTS} nor {ADAPTER_BIN}: no weights.")
    if new.is_file() and old.is_file():
        mine, theirs = read_tensors(new), read_tensors(old)
        same = mine.keys() == theirs.keys() and all(torch.equal(t, theirs[n]) for n, t in mine.items())
        if not same:
            raise InputError(
                f"{str(folder)!r} holds {ADAPTER_WEIGHTS} and {ADAPTER_BIN}, and they differ. Remove the one that is stale."
            )
    return new if new.is_file() else old


def put_others(model: Any, folder: Path, needed: bool = False) -> None:
    """Put the weights that an adapter's training changed besides it into its base, if the folder has them.

    Raises:
        InputError: they do not fit; there are two files of them, or none where one is `needed` (LLaVA writes it always).
    """
    files = [folder / n for n in (NON_LORA, NON_LORA_BIN) if (folder / n).is_file()]
    if len(files) > 1:
        raise InputError(f"{str(folder)!r} holds {NON_LORA} and {NON_LORA_BIN}; remove the one that is stale.")
    if needed and not files:
        raise InputError(
            f"{str(folder)!r} is a LoRA of LLaVA's own code, and {NON_LORA_BIN} (its trained projector) is missing: copy "
            "it there too."
        )
    listed = folder / NON_LORA_NAMES
    if listed.is_file() and not files:
        raise InputError(f"{str(folder)!r} lacks {NON_LORA}, whose tensors {NON_LORA_NAMES} names: copy it there too.")
    if files:
        tensors = read_tensors(files[0], next(model.parameters()).is_meta)
        named = {canonical(modern(n, model)): t for n, t in tensors.items()}
        if len(named) != len(tensors):
            raise InputError(f"{str(files[0])!r} holds several tensors of one name in different layouts.")
        put_tensors(model, named, repr(str(files[0])))
        names = read_as(listed, list[str], "list of tensors", "Copy it again.") if listed.is_file() else []
        lost = sorted(set(names) - set(named))
        if lost:
            raise InputError(f"{str(files[0])!r} does not fit its model. Missing tensors: {lost[:5]}.")


def modern(name: str, model: nn.Module) -> str:
    """Return today's name of a tensor that another program or version named; any other name stays as it is."""
    front = _FRONT if name.startswith(_FRONT) else ""
    body = name.removeprefix(_FRONT).replace(".default.", ".")
    return front + family_of(model).modern(body, model)


def _layout(names: dict[str, Any], model: Any, where: str) -> Layout | None:
    """Return whose names a file's tensors have; None for today's."""
    family = family_of(model)
    bodies = [n.removeprefix(_FRONT) for n in names]
    # LoRA sits on the decoder, and what is trained beside it is the connector
    ours = tuple(f"{module}." for module in (*family.components.decoder, *family.components.connector))
    by_layout = [[n for n in bodies if layout.theirs(n)] for layout in family.layouts]
    today = [n for n in bodies if n.startswith(ours)]
    mixed = [f[0] for f in (*by_layout, today) if f]
    if len(mixed) > 1:
        raise InputError(f"{where!r} mixes names of different layouts: {mixed}.")
    return next((layout for layout, hits in zip(family.layouts, by_layout, strict=True) if hits), None)


def _translate(config: Any, model: nn.Module, alias: Callable[[str], str | None]) -> None:
    """Name the config's targets and patterns by today's modules, as PEFT would have found them among the old names."""
    from peft.tuners.tuners_utils import check_target_module_exists

    named = {n: a for n, m in model.named_modules() if (a := alias(n)) is not None and not list(m.children())}
    if config.target_modules == "all-linear":
        heads = family_of(model).components.head
        linears = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        modules = [n for n in named if n in linears and n not in heads]
    else:
        # targets of the old names, or of today's
        modules = [n for n, a in named.items() if check_target_module_exists(config, a)]
        modules = modules or [n for n in named if check_target_module_exists(config, n)]
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(config, field, None) or {}
        hits = {n: next((v for p, v in patterns.items() if _hits(p, named[n])), None) for n in modules}
        lost = [p for p in patterns if not any(_hits(p, named[n]) for n in modules)]
        # a pattern that hits nothing stays, to be refused by name
        exact = {re.escape(n): v for n, v in hits.items() if v is not None}
        setattr(config, field, exact | {p: patterns[p] for p in lost})
    config.target_modules = set(modules)
    for field in ("exclude_modules", "layers_to_transform", "layers_pattern"):
        if hasattr(config, field):
            setattr(config, field, None)


def _hits(pattern: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def _config(folder: Path) -> Any:
    from peft import PeftConfig

    read_object(folder / ADAPTER)
    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{str(folder / ADAPTER)!r} is no config that PEFT reads: {error}.") from error
    if config.is_prompt_learning or getattr(config, "target_modules", None) is None:
        raise InputError(
            f"{str(folder / ADAPTER)!r}: {config.peft_type.value} adapters are not on modules of the model "
            "(target_modules); only those can be read."
        )
    config.inference_mode = True
    return config


def _wrap(model: Any, config: Any, folder: Path) -> Any:
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftModel

    kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
    if next(model.parameters()).is_meta and hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # PiSSA and its like decompose the base's weights, and here are none
    try:
        # PEFT would put adapters of a bfloat16 base into float32, and every product with them
        return kind(model, config, autocast_adapter_dtype=False)
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
        raise InputError(f"{str(folder / ADAPTER)!r} does not fit its base: {error}.") from error


def _refuse_patterns(wrapped: Any, config: Any, folder: Path) -> None:
    """Refuse ranks and alphas of modules that have no adapter: PEFT passes over them, and scales by others."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    names = [n for n, m in wrapped.base_model.model.named_modules() if isinstance(m, BaseTunerLayer)]
    for field in ("rank_pattern", "alpha_pattern"):
        lost = [p for p in getattr(config, field, None) or {} if not any(_hits(p, n) for n in names)]
        if lost:
            raise InputError(f"{str(folder / ADAPTER)!r}: {field} names modules that have no adapter: {lost[:5]}.")


def _saved(wrapped: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the shapes of what PEFT would write of this model, by its names, and of what may stand beside it."""
    from peft import get_peft_model_state_dict

    wanted = shapes_of(get_peft_model_state_dict(wrapped, save_embedding_layers=False).items())
    there = {n.replace(".default", ""): s for n, s in shapes_of(wrapped.state_dict().items()).items()}
    # embeddings that PEFT writes along when they were resized, or are a target
    heads = "|".join(("embed_tokens", *map(re.escape, family_of(wrapped).components.head)))
    beside = {n: s for n, s in there.items() if re.search(rf"\b({heads})(\.base_layer)?\.(weight|bias)$", n)}
    return wanted, beside
