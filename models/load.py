"""Loading LLaVA-family checkpoints from disk: Hugging Face's own classes, local files, safetensors, no remote code.

Parts that its class does not hold are built as config.json says (`family/llava.py`) before weights are read. Four kinds of
folder: a whole model, a PEFT adapter that names its base, the trained weights of one training alone (`trained.py`), and
MoReS (`mores_files.py`), which name theirs.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, LlavaProcessor

from ..store.errors import InputError, suggest
from ..store.files import read_json
from .family.llava import class_of
from .mores_files import MORES, put_mores
from .parts import base_of
from .trained import TRAINED, put_trained, trained_base

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
ADAPTER = "adapter_config.json"
# what a LoRA training changed besides its adapters (the projector), by canonical name
NON_LORA = "non_lora.safetensors"
# Adam's moments beside the weights (`moments.py`); no part of what the model computes
MOMENTS = "moments.safetensors"


@dataclass
class Loaded:
    """A model in eval mode with its processor; `path` is the folder."""

    model: Any
    processor: LlavaProcessor
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
        InputError: no such folder, not a LLaVA, unknown dtype, damaged files, weights missing or unknown to the class.
    """
    folder = check_folder(path)
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}{suggest(dtype, DTYPES)}")
    try:
        model = _model(folder, dtype, attn, _placed(quantise, dtype, device))
    except (InputError, torch.OutOfMemoryError):
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{str(folder)!r} cannot be loaded: {type(error).__name__}: {error}.") from error
    model = model if quantise else model.to(device)
    return Loaded(model.eval(), load_processor(path), str(folder))


def _placed(quantise: str | None, dtype: str, device: str) -> dict[str, Any]:
    """Return what `from_pretrained` needs to put weights where they belong, in the form that they will have there."""
    if quantise is None:
        # from the file to the GPU, without a copy of the whole model in the host's memory for each worker
        return {} if device == "cpu" else {"device_map": {"": device}}
    if quantise != "nf4":
        raise InputError(f"unknown quantise {quantise!r}{suggest(quantise, ['nf4'])}")
    if find_spec("bitsandbytes") is None:
        raise InputError("quantise: nf4 needs bitsandbytes; install the extra `vinnow[gpu]`.")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
        llm_int8_skip_modules=["model.vision_tower", "model.multi_modal_projector", "lm_head"],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _model(folder: Path, dtype: str, attn: str, more: dict[str, Any]) -> Any:
    if (folder / TRAINED).is_file():
        model = _model(check_folder(trained_base(folder, model_digest)), dtype, attn, more)
        put_trained(model, folder)
        return model
    if (folder / MORES).is_file():
        model = _model(check_folder(trained_base(folder, model_digest, MORES)), dtype, attn, more)
        put_mores(model, folder)
        if (folder / NON_LORA).is_file():
            _apply(base_of(model), folder / NON_LORA)
        return model
    is_adapter = (folder / ADAPTER).is_file()
    base = check_folder(adapter_base(folder)) if is_adapter else folder
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    if config.model_type != "llava":
        raise InputError(
            f"{str(base)!r} is a {config.model_type!r} model, not a LLaVA (LlavaForConditionalGeneration)."
        )
    model, info = class_of(config).from_pretrained(
        base,
        dtype=DTYPES[dtype],
        attn_implementation=attn,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        **more,
    )
    # transformers only warns about these and goes on with random weights
    wrong = {k: sorted(info[k])[:5] for k in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(k)}
    if wrong:
        raise InputError(f"{str(base)!r}: its weights do not fit the model: {wrong}.")
    if is_adapter:
        from peft import PeftModel

        if (folder / NON_LORA).is_file():
            _apply(model, folder / NON_LORA)
        # PEFT would put adapters of a bfloat16 base into float32, and every product with them
        model = PeftModel.from_pretrained(model, str(folder), local_files_only=True, autocast_adapter_dtype=False)
        model.to(DTYPES[dtype])
    return model


def load_processor(path: str) -> LlavaProcessor:
    """Load tokenizer and image processor (the PIL one: the default class needs torchvision).

    Raises:
        InputError: the folder has no processor, or lacks what the number of image tokens is computed from.
    """
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    folder = check_folder(path)
    if (folder / ADAPTER).is_file() and not (folder / "tokenizer_config.json").is_file():
        folder = check_folder(adapter_base(folder))
    settings = _processor_settings(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        images = LlavaImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{str(folder)!r} has no usable tokenizer or image processor: {error}.") from error
    if not settings.get("patch_size"):
        raise InputError(f"{str(folder)!r}: processor_config.json lacks patch_size, so image tokens cannot be counted.")
    known = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens", "image_token")
    return LlavaProcessor(images, tokenizer, **{k: settings[k] for k in known if k in settings})


def model_digest(path: str) -> str:
    """Digest a checkpoint's content (weights and config, base included for an adapter): 16 hexadecimal digits."""
    folder = check_folder(path)
    h = blake2b(digest_size=8)
    names = sorted(n for n in folder.glob("*.safetensors") if n.name != MOMENTS)
    if (folder / TRAINED).is_file():
        h.update(str(read_json(folder / TRAINED)["base_digest"]).encode())
    elif (folder / MORES).is_file():
        facts = read_json(folder / MORES)
        # the spec says which tokens are steered, which the weights do not
        h.update(json.dumps([facts["base_digest"], facts["spec"]], sort_keys=True).encode())
    elif (folder / ADAPTER).is_file():
        h.update(model_digest(str(adapter_base(folder))).encode())
    else:
        names = [folder / "config.json", *names]
    # a base of 14 GB is read once a process, not once for each checkpoint that names it
    h.update(_content(tuple((str(n), n.stat().st_size, n.stat().st_mtime_ns) for n in names)))
    return h.hexdigest()


@lru_cache(256)
def _content(files: tuple[tuple[str, int, int], ...]) -> bytes:
    h = blake2b(digest_size=8)
    for name in (Path(file) for file, _, _ in files):
        h.update(name.name.encode())
        with name.open("rb") as source:
            while block := source.read(1 << 24):
                h.update(block)
    return h.digest()


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint's folder, or say what is wrong with it."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"no checkpoint at {str(path)!r}: there is no such folder. Train one with `vinnow train`.")
    if not (folder / "config.json").is_file() and not (folder / ADAPTER).is_file():
        raise InputError(f"{str(path)!r} is no checkpoint: it has neither config.json nor {ADAPTER}.")
    return folder


def _processor_settings(folder: Path) -> dict[str, Any]:
    file = folder / "processor_config.json"
    return read_json(file) if file.is_file() else {}


def adapter_base(folder: Path) -> Path:
    """Return the base checkpoint that an adapter names; a relative path counts from the adapter's folder."""
    base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not base:
        raise InputError(f"{str(folder / ADAPTER)!r} does not name its base model (base_model_name_or_path).")
    return Path(base) if os.path.isabs(base) else folder / base


def _apply(model: Any, file: Path) -> None:
    from safetensors.torch import load_file

    result = model.load_state_dict(load_file(file), strict=False)
    if result.unexpected_keys:
        raise InputError(f"{str(file)!r} holds weights that the model does not have: {result.unexpected_keys[:5]}.")
