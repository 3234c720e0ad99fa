"""Whether what a folder's weights need is installed, and its config and processor mean the same pictures and words."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..store.errors import InputError
from .folders import read_object
from .registry import family_of

# the library that holds weights of a quantised folder, by `quant_method`: module, and what to install
_LIBRARIES = {
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "gptq": ("gptqmodel", "gptqmodel optimum"),
    "awq": ("gptqmodel", "gptqmodel"),
    "aqlm": ("aqlm", "aqlm"),
    "quanto": ("optimum", "optimum-quanto"),
    "eetq": ("eetq", "eetq"),
    "hqq": ("hqq", "hqq"),
    "higgs": ("flute", "flute-kernel"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "fbgemm_fp8": ("fbgemm_gpu", "fbgemm-gpu"),
    "torchao": ("torchao", "torchao"),
    "vptq": ("vptq", "vptq"),
    "spqr": ("spqr_quant", "spqr_quant[gpu]"),
}


def check_library(folder: Path) -> None:
    """Refuse a folder of quantised weights whose library is not installed.

    Raises:
        InputError: names the library.
    """
    told = read_object(folder / "config.json").get("quantization_config")
    if told is None:
        return
    told = told if isinstance(told, dict) else {}
    four = told.get("load_in_4bit") or told.get("load_in_8bit")
    method = str(told.get("quant_method") or ("bitsandbytes" if four else "unknown"))
    module, package = _LIBRARIES.get(method, (None, None))
    where = f"{str(folder / 'config.json')!r}: its weights are quantised (quantization_config: {method})"
    if module is None:
        raise InputError(f"{where}, which cannot be loaded here. Take the folder of the model before it was quantised.")
    if find_spec(module) is None:
        raise InputError(
            f"{where}, and {module} is not installed: pip install {package}; or take the folder of the model before it "
            "was quantised."
        )


def check_fit(config: Any, processor: Any, path: str) -> None:
    """Refuse a checkpoint whose config and processor disagree; what of is its family's (`Family.check_fit`).

    Raises:
        InputError: names both files and their fields.
    """
    family_of(config).check_fit(config, processor, path)
