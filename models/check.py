"""Looking at a checkpoint before anything expensive starts: the driver's check, of any kind of folder and any size.

It is loading itself on the meta device: headers and settings are read, weights are not.
"""

from pathlib import Path

from .components import base_of
from .fit import check_fit, check_library
from .folders import chain, read_object
from .intact import check_files, check_settings, has_weights
from .load import load_processor, model_digest, read_config, read_model


def check_model(path: str | Path) -> None:
    """Refuse a checkpoint that could not be used, or would be used wrongly.

    Its files are whole, every tensor fits the model and none is missing, config and processor mean the same pictures and
    words, the library of quantised weights is there. Bases included, but for the content of weights.

    Raises:
        InputError: says which file, what is wrong with it, and the way out.
    """
    path = str(path)
    folders = chain(path)
    for folder in folders:
        check_files(folder)
    root = folders[-1]
    check_library(root)
    if read_object(root / "config.json").get("quantization_config") is None:
        config = base_of(read_model(path, "float32", "sdpa", {"device_map": "meta"})).config
    else:  # packed weights have shapes of their own, which their library knows
        config = read_config(root)
    check_fit(config, load_processor(path), path)


def check_without_weights(path: str | Path) -> bool:
    """Check a folder in which no weights lie yet by its settings alone; False for any other, of which nothing is said.

    Raises:
        InputError: a file is damaged, or config and processor do not go together.
    """
    path = str(path)
    folders = chain(path)
    if len(folders) > 1 or has_weights(folders[0]):
        return False
    check_settings(folders[0])
    check_library(folders[0])
    check_fit(read_config(folders[0]), load_processor(path), path)
    return True


def checked_digest(path: str) -> str:
    """Return `model_digest` of a checkpoint that `check_model` lets through. Errors: as there."""
    check_model(path)
    return model_digest(path)
