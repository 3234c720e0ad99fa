"""The processor of a Hugging Face folder without torchvision: its tokenizer, its PIL image processor, and its settings.

Hugging Face's own processor classes of models that also take videos cannot be made without torchvision, so a family's
reader says what they would: how many tokens a picture becomes, and between which.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from ....store.errors import InputError
from ....store.reading import wrong
from ...folders import LOCAL, read_object

SETTINGS = "processor_config.json"
# where a model's own chat template may lie, the first that is there first
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
# files that only other programs read
_COPIED = ("*template*", "video_preprocessor_config.json", SETTINGS)


class FolderProcessor:
    """`family`: the name of its family; `settings`: those of processor_config.json; `folder`: where it was read."""

    def __init__(
        self,
        family: str,
        tokenizer: Any,
        images: Any,
        settings: dict[str, Any] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.family, self.tokenizer, self.image_processor = family, tokenizer, images
        self.settings, self.folder = settings or {}, folder

    def save_pretrained(self, folder: str) -> None:
        """Write all of it, and copy the files that only other programs read."""
        for pattern in _COPIED:
            for file in self.folder.glob(pattern) if self.folder is not None else ():
                if file.is_file() and not Path(folder, file.name).is_file():
                    shutil.copyfile(file, Path(folder, file.name))
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        if self.settings and not Path(folder, SETTINGS).is_file():
            Path(folder, SETTINGS).write_text(json.dumps(self.settings, indent=2) + "\n")


def load(folder: Path, family: str, images: Any) -> FolderProcessor:
    """Return a folder's processor; `images`: the class of its image processor (a PIL one).

    Raises:
        InputError: no usable tokenizer or image processor is there.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
        pictures = images.from_pretrained(folder, **LOCAL)
    except Exception as error:  # the tokenizers library raises bare ones on a damaged file
        kind = type(error).__name__
        raise InputError(
            f"{str(folder)!r} has no usable tokenizer or image processor: {kind}: {wrong(error)}."
        ) from error
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = _template(folder)
    settings = read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    return FolderProcessor(family, tokenizer, pictures, settings, folder)


def known(tokenizer: Any, token: str) -> int:
    """Return a token's id.

    Raises:
        InputError: the tokenizer does not have it.
    """
    number = tokenizer.convert_tokens_to_ids(token)
    if number is None or tokenizer.convert_ids_to_tokens(number) != token:
        raise InputError(f"the tokenizer does not know the token {token!r}; take the one that its model was made with.")
    return int(number)


def _template(folder: Path) -> str | None:
    """Return the processor's own chat template: older folders keep it beside the tokenizer's files."""
    jinja, held = (folder / name for name in _TEMPLATES)
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    if held.is_file():
        text = read_object(held).get("chat_template")
        return text if isinstance(text, str) else None
    return None
