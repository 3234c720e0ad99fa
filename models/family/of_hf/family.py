"""What families of Hugging Face's classes share: only what differs stands in a family's own file.

transformers is imported inside methods, so that finding families does not load it.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from ....pool.templates import OWN
from ....store.errors import InputError
from ...folders import chain, processor_folder
from ...protocol import Family
from .processor import FolderProcessor, load


class HFFamily(Family):
    """A family whose folder is a Hugging Face one as it is. `hf`: the model's class in transformers."""

    processors = ("FolderProcessor",)
    hf: ClassVar[str]

    def class_of(self, config: Any) -> Any:
        """Return Hugging Face's class."""
        import transformers

        return getattr(transformers, self.hf)

    @abstractmethod
    def image_processor(self) -> Any:
        """Return the class of the image processor: a PIL one, since the default ones need torchvision."""

    def load_processor(self, folder: Path) -> FolderProcessor:
        """Return tokenizer, image processor and settings."""
        return load(folder, self.name, self.image_processor())

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Return in words what of a config and a processor does not mean the same pictures."""
        return []

    def check_fit(self, config: Any, processor: FolderProcessor, path: str) -> None:
        """See `Family.check_fit`: vocabulary, and what `faults` adds."""
        faults = self.faults(config, processor)
        top = max(processor.tokenizer.get_vocab().values(), default=0)
        rows = config.get_text_config().vocab_size
        if top >= rows:
            faults.append(f"config.json has vocab_size {rows}, the tokenizer's ids go up to {top}")
        if faults:
            raise InputError(
                f"{str(chain(path)[-1] / 'config.json')!r} and the processor in {str(processor_folder(path))!r} do not go "
                f"together: {'; '.join(faults)}. Put the model's own processor files beside it, or mend what is wrong."
            )

    def template(self, config: Any, tokenizer: Any) -> str:
        """Return `own`: the model's chat template.

        Raises:
            InputError: the folder has none.
        """
        if getattr(tokenizer, "chat_template", None):
            return OWN
        raise InputError(
            f"this {self.label} has no chat template (chat_template.jinja): put the model's own file beside it, or name a "
            "conversation template."
        )

    def image_id(self, config: Any) -> int:
        """Return the token whose places the features of pictures take."""
        return int(config.image_token_id)


def unlike(pairs: dict[str, tuple[Any, Any]], theirs: str) -> list[str]:
    """Return in words where config.json (first) and another file's settings (second, called `theirs`) differ, by field."""
    return [
        f"config.json has {name} {ours}, {theirs} {other}" for name, (ours, other) in pairs.items() if ours != other
    ]


def switched_off(images: Any, *steps: str) -> list[str]:
    """Return in words which steps an image processor leaves out, without which its pictures are not known here."""
    off = [step for step in steps if not getattr(images, step)]
    return [f"the image processor has {', '.join(off)} off"] if off else []
