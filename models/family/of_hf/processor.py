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
# where a processor's own chat templates may lie, and the field of JSON files that holds them
_HELD, _JINJA, _OTHERS, _FIELD = (
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates",
    "chat_template",
)
# files that only other programs read
_COPIED = ("video_preprocessor_config.json",)


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
        """Write all of it, and copy the files that only other programs read.

        The tokenizer writes the chat templates, in today's form: beside them no older file may say something else.
        """
        for name in _COPIED:
            if self.folder is not None and (self.folder / name).is_file() and not Path(folder, name).is_file():
                shutil.copyfile(self.folder / name, Path(folder, name))
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        settings = {name: value for name, value in self.settings.items() if name != _FIELD}
        if settings and not Path(folder, SETTINGS).is_file():
            Path(folder, SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


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
    take_template(tokenizer, folder)
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


def take_template(tokenizer: Any, folder: Path) -> None:
    """Give a tokenizer the chat template of its folder's processor, where that has one: with pictures it alone is right.

    Of several places one wins as in Hugging Face's processors: processor_config.json, chat_template.json,
    chat_template.jinja with what lies in additional_chat_templates, and last the tokenizer's own.

    Raises:
        InputError: a file holds what is no template, or chat_template.json has others beside it.
    """
    template = None
    if (folder / SETTINGS).is_file():
        template = _templates(read_object(folder / SETTINGS).get(_FIELD), folder / SETTINGS)
    if template is None:
        template = _of_files(folder)
    if template:
        tokenizer.chat_template = template


def _of_files(folder: Path) -> str | dict[str, str] | None:
    """Return what the files say that hold nothing but chat templates."""
    named = {file.stem: _text(file) for file in sorted(folder.glob(f"{_OTHERS}/*.jinja"))}
    held, jinja = folder / _HELD, folder / _JINJA
    if held.is_file():
        if named:
            raise InputError(
                f"{str(held)!r} and {_OTHERS}/ both hold chat templates, and Hugging Face takes no such folder: put the "
                f"former's text into {_JINJA}, and delete it."
            )
        return _templates(read_object(held).get(_FIELD), held)
    if jinja.is_file():
        named["default"] = _text(jinja)
    return named["default"] if list(named) == ["default"] else named or None


def _templates(value: Any, file: Path) -> str | dict[str, str] | None:
    """Return a field's template, or its templates by name: files hold these as a list, as the tokenizer's does."""
    named = value
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        named = {one.get("name"): one.get("template") for one in value}
    if named is None or isinstance(named, str):
        return named
    if isinstance(named, dict) and all(isinstance(text, str) for pair in named.items() for text in pair):
        return named
    raise InputError(
        f"{str(file)!r}: {_FIELD} is neither a text nor a list of texts by name; put the model's own file there."
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(file)!r} is no text in UTF-8: {error}. Copy the model's own file again.") from error
