"""Loading checkpoints from disk: Hugging Face's own classes, local files, safetensors, no remote code.

What a folder is of, its family says (`registry.py`, by config.json's model_type). Four kinds of
folder (`folders.py`): a whole model, a PEFT adapter that names its base, the trained weights of one training alone
(`trained.py`), and MoReS (`mores_files.py`), which name theirs. Every tensor of a file finds its place, or is refused by
name; on the meta device headers alone are read (`check.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.utils import logging

from ..store.errors import InputError, suggest
from ..store.files import is_uri
from ..store.reading import wrong
from .adapter_files import put_adapter, put_others
from .components import base_of
from .digest import model_digest as model_digest
from .fit import check_fit, check_library
from .folders import ADAPTER as ADAPTER
from .folders import LOCAL, MORES, TRAINED, base_folder, chain, check_folder, marker, read_object
from .folders import MOMENTS as MOMENTS
from .folders import NON_LORA as NON_LORA
from .folders import adapter_base as adapter_base
from .hub import refuse_foreign
from .intact import check_files
from .mores_files import put_mores
from .processor import load_processor as load_processor
from .registry import family_of, find
from .tensors import LEGAL_EXTRAS, refuse_unsound
from .trained import check_base, put_trained

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# fields of a config that change no number
_IDLE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache")


@dataclass
class Loaded:
    """A model in eval mode with its processor; `path` is the folder."""

    model: Any
    processor: Any
    path: str

    @cached_property
    def digest(self) -> str:
        """The name of the weights' content, read when first asked for: 14 GB take a while."""
        return model_digest(self.path)


def load(
    path: str, dtype: str = "float32", device: str = "cpu", attn: str = "sdpa", quantise: str | None = None
) -> Loaded:
    """Load a LLaVA checkpoint, or a PEFT adapter on its base (`adapter_config.json` names it; not merged).

    `quantise="nf4"`: the decoder's Linears in 4 bits (bitsandbytes, double quantisation); not tower, projector or head.

    Raises:
        InputError: no such folder, not a LLaVA, unknown dtype, damaged files, weights missing, unknown to the class or not
            finite, a config and a processor that disagree.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}{suggest(dtype, DTYPES)}")
    for folder in chain(path):
        check_files(folder)
    processor = load_processor(path)  # small files first
    # PyTorch lets convolutions round float32 to TF32's 10 bits unless told: a float32 model is to be one
    torch.backends.cudnn.allow_tf32 = False
    model = read_model(path, dtype, attn, _placed(path, quantise, dtype, device))
    refuse_unsound(f"{str(path)!r} (in {dtype})", model.named_parameters())
    model = model if quantise else model.to(device)
    check_fit(base_of(model).config, processor, path)
    return Loaded(model.eval(), processor, path if is_uri(path) else str(Path(path)))


def read_model(path: str, dtype: str, attn: str, more: dict[str, Any]) -> Any:
    """Return the model of a checkpoint's folder; `more` goes to `from_pretrained`.

    Raises:
        InputError: its files cannot be loaded, or do not fit.
    """
    folder = check_folder(path)
    try:
        return _model(folder, dtype, attn, more)
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what its classes say to settings and weights that they cannot take is of any kind
        raise InputError(f"{str(folder)!r} cannot be loaded: {type(error).__name__}: {wrong(error)}.") from error


def _placed(path: str, quantise: str | None, dtype: str, device: str) -> dict[str, Any]:
    """Return what `from_pretrained` needs to put weights where they belong, in the form that they will have there."""
    if quantise is None:
        # from the file to the GPU, without a copy of the whole model in the host's memory for each worker
        return {} if device == "cpu" else {"device_map": {"": device}}
    if quantise != "nf4":
        raise InputError(f"unknown quantise {quantise!r}{suggest(quantise, ['nf4'])}")
    if find_spec("bitsandbytes") is None:
        raise InputError("quantise: nf4 needs bitsandbytes; install the extra `vinnow[gpu]`.")
    from transformers import BitsAndBytesConfig

    components = find(read_object(chain(path)[-1] / "config.json")["model_type"]).components
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
        llm_int8_skip_modules=[*components.vision, *components.connector, *components.head],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _model(folder: Path, dtype: str, attn: str, more: dict[str, Any]) -> Any:
    kind, base = marker(folder), base_folder(folder)
    if base is None:
        return _whole(folder, dtype, attn, more)
    if kind != ADAPTER and more.get("device_map") != "meta":
        check_base(folder, base, model_digest, str(kind))
    model = _model(check_folder(base), dtype, attn, more)
    if kind == ADAPTER:
        return put_adapter(model, folder).to(DTYPES[dtype])
    if kind == TRAINED:
        _refuse_other_config(folder, chain(folder)[-1])
        put_trained(model, folder)
    if kind == MORES:
        put_mores(model, folder)
        put_others(base_of(model), folder)
    return model


def _whole(folder: Path, dtype: str, attn: str, more: dict[str, Any]) -> Any:
    check_library(folder)
    config = read_config(folder)
    if more.get("device_map") != "meta" and getattr(config, "quantization_config", None) is None:
        # headers first: a config of 7B over other weights would be drawn at random before it is refused
        _whole(folder, dtype, attn, {"device_map": "meta"})
    with _quiet(more.get("device_map") == "meta"):
        model, info = (
            family_of(config)
            .class_of(config)
            .from_pretrained(
                folder,
                dtype=DTYPES[dtype],
                attn_implementation=attn,
                **LOCAL,
                use_safetensors=True,
                output_loading_info=True,
                # they are refused below, by name; its own error names none
                ignore_mismatched_sizes=True,
                **more,
            )
        )
    # transformers only warns about these and goes on with random weights
    wrong = {k: sorted(map(str, info[k])) for k in ("missing_keys", "mismatched_keys", "error_msgs") if info.get(k)}
    extra = sorted(n for n in info.get("unexpected_keys", ()) if not n.endswith(LEGAL_EXTRAS))
    wrong |= {"unexpected_keys": extra} if extra else {}
    if wrong:
        said = {k: [*v[:5], *([f"and {len(v) - 5} more"] if len(v) > 5 else [])] for k, v in wrong.items()}
        raise InputError(f"{str(folder)!r}: its weights do not fit the model: {said}.")
    return model


def _refuse_other_config(folder: Path, root: Path) -> None:
    """Refuse a folder of trained weights whose config.json is not its base's: the model is built by the base's."""
    mine, theirs = (_leaves(read_config(f).to_dict()) for f in (folder, root))
    names = sorted(n for n in mine.keys() | theirs.keys() if n.rsplit(".", 1)[-1] not in _IDLE)
    other = [f"{n} is {mine.get(n)!r}, the base's {theirs.get(n)!r}" for n in names if mine.get(n) != theirs.get(n)]
    if other:
        raise InputError(
            f"{str(folder / 'config.json')!r} is not that of its base {str(root)!r}: {'; '.join(other[:5])}. The model is "
            "built by the base's: change it there, or put this one back."
        )


def _leaves(tree: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {where: tree}
    return {n: v for key, value in tree.items() for n, v in _leaves(value, f"{where}.{key}".lstrip(".")).items()}


def read_config(folder: Path) -> Any:
    """Return a whole model's config.

    Raises:
        InputError: it cannot be read, or is not a LLaVA's.
    """
    refuse_foreign(folder, read_object(folder / "config.json"))
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
        family_of(config).check_config(config)
    except Exception as error:  # its fields are checked by classes with errors of their own
        file, kind = str(folder / "config.json"), type(error).__name__
        raise InputError(f"{file!r} cannot be read: {kind}: {wrong(error)}.") from error
    text = config.get_text_config()
    pad, words = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if isinstance(pad, int) and isinstance(words, int) and not -1 <= pad < words:
        raise InputError(
            f"{str(folder / 'config.json')!r}: text_config.pad_token_id is {pad}, and its vocabulary has {words} entries."
        )
    return config


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Let transformers count no weights on the terminal while headers are looked at."""
    shown = logging.is_progress_bar_enabled()
    if quiet and shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if quiet and shown:
            logging.enable_progress_bar()
