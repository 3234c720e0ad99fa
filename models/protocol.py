"""What is asked of a family of vision-language models: one file in `family/` that ends in `FAMILY = ItsClass`.

What a family calls its modules, settings and tensors stands in its file alone. Modules of families load transformers where
they use it, not at their head: all of them are scanned to find one. What a batch is: `pool/collate.py`, then `forward.py`.
Axes: B rows, T tokens, I pictures, R image tokens of the batch, H the decoder's width, N leading rows of a tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ..pool.encode import Encoder
from ..pool.shown import Pictures
from ..pool.vision import PictureReader
from ..store.errors import InputError

Batch = dict[str, Any]


@dataclass(frozen=True)
class Components:
    """Where a model's components lie, as full names of modules in memory; together they hold all of its parameters.

    A name inside another one goes to the longer: a connector may lie inside the vision tower. Behind the connector's module
    may stand names of bare parameters that belong to it.
    """

    vision: tuple[str, ...]
    connector: tuple[str, ...]
    decoder: tuple[str, ...]
    head: tuple[str, ...]

    def by_module(self) -> dict[str, str]:
        """Return the component of each module (`specs.COMPONENTS`, without what is added to a model)."""
        both = (*self.decoder, *self.head)
        named = (("vision_tower", self.vision), ("projector", self.connector), ("language_model", both))
        return {module: component for component, modules in named for module in modules}


class Family(ABC):
    """One family; it holds nothing, so one object of it serves all models.

    `name`: as its file; `kinds`: values of `model_type` in config.json; `label`: what people call it, with its class;
    `processors`: classes of its processors. `layouts`: other programs' names of tensors (`Layout`). `old`: regexes and
    replacements that make other versions' names of parameters into those in memory, from the component on.
    `counted`: a token's position is how many stand before it, and a picture is one row of each of its media.
    `unnamed`: the conversation template where a config names none; "": what `template` returns.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    label: ClassVar[str]
    processors: ClassVar[tuple[str, ...]]
    components: ClassVar[Components]
    layouts: ClassVar[tuple["Layout", ...]] = ()
    old: ClassVar[dict[str, str]] = {}
    counted: ClassVar[bool] = False
    unnamed: ClassVar[str] = ""

    # ---- on disk

    @abstractmethod
    def class_of(self, config: Any) -> Any:
        """Return the transformers class (or one made of it) that a config is of."""

    @abstractmethod
    def load_processor(self, folder: Path) -> Any:
        """Return a folder's processor, with `tokenizer` and `save_pretrained`.

        Raises:
            InputError: there is none, or it lacks what is read of it.
        """

    def check_config(self, config: Any) -> None:  # noqa: B027
        """Refuse a config whose settings beside transformers' own cannot be used; any error says why."""

    @abstractmethod
    def check_fit(self, config: Any, processor: Any, path: str) -> None:
        """Refuse a checkpoint whose config and processor do not mean the same pictures and words.

        Raises:
            InputError: names both files and their fields.
        """

    def modern(self, name: str, model: nn.Module) -> str:
        """Return the name in memory of a tensor that another program or version named; any other stays as it is."""
        return name

    @abstractmethod
    def tiny(self, out: str, texts: list[str]) -> str:
        """Write a tiny model of random weights with tokenizer and processor to the folder `out`; returns it."""

    # ---- records

    @abstractmethod
    def template(self, config: Any, tokenizer: Any) -> str:
        """Return the conversation template (`pool/templates.py`) that goes with a model."""

    @abstractmethod
    def reader(self, processor: Any, image_mode: str) -> PictureReader:
        """Return what prepares pictures. Raises InputError for an image mode, or a processor, that cannot be used."""

    def encoder(self, processor: Any, text: tuple[str, int, str], pictures: Pictures) -> Encoder:
        """Return what encodes records; `text`: template, longest row in tokens, image mode. Errors: as `Encoder`."""
        template, max_len, image_mode = text
        return Encoder(self.reader(processor, image_mode), template, max_len, pictures)

    # ---- sizes

    def width(self, config: Any) -> int:
        """Return the decoder's values a token."""
        return int(config.get_text_config().hidden_size)

    def pictures(self, config: Any, count: int) -> dict[str, torch.Tensor]:
        """Return the media of `count` usual pictures, in float32, whose values do not matter: a price is counted on them.

        By default blank ones. Where a picture's size is free, take one that people have: the price of others goes by
        their number of tokens.
        """
        return {name: torch.cat([value] * count) for name, value in self.blank(config).items()}

    # ---- components of a model in memory; all take a PEFT wrapper too

    def vision(self, model: Any) -> list[nn.Module]:
        """Return the modules that see pictures; they are the same for checkpoints that did not train them."""
        return [_module(model, name) for name in self.components.vision]

    def connector(self, model: Any) -> nn.Module:
        """Return the module between vision and decoder, or a list of all that there are; without bare parameters."""
        members = [attrgetter(name)(base_of(model)) for name in self.components.connector]
        modules = [member for member in members if isinstance(member, nn.Module)]
        return modules[0] if len(modules) == 1 else nn.ModuleList(modules)

    def decoder(self, model: Any) -> Any:
        """Return the decoder without its head: it takes `inputs_embeds`, and keeps its blocks in `layers`."""
        return _module(model, self.components.decoder[0])

    @property
    def decoder_name(self) -> str:
        """How names of modules call the decoder."""
        return self.components.decoder[0].removeprefix("model.")

    def lora_names(self, model: Any) -> list[str]:
        """Return the leaf names of the Linears in the decoder's blocks, where adapters go by default."""
        named = self.decoder(model).layers.named_modules()
        return sorted({n.rsplit(".", 1)[-1] for n, m in named if isinstance(m, nn.Linear)})

    def head(self, model: Any) -> Any:
        """Return the LM head."""
        return _module(model, self.components.head[0])

    # ---- one forward pass in pieces

    @abstractmethod
    def image_id(self, config: Any) -> int:
        """Return the token whose places the features of pictures take."""

    def image_mask(self, config: Any, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return which tokens are features of pictures, bool [B, T]: as many as `connect` gives."""
        return ids_BT == self.image_id(config)

    @abstractmethod
    def see(self, model: Any, media: dict[str, torch.Tensor]) -> Any:
        """Return what the connector reads of a batch's pictures; without gradients it is the same for equal `vision`."""

    @abstractmethod
    def connect(self, model: Any, seen: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the image tokens [R, H] of all pictures, in their order."""

    @abstractmethod
    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return the media of one blank picture, in float32: what a batch without one sends through for its graph."""

    def arguments(self, model: Any, batch: Batch, seen: Any) -> dict[str, Any]:
        """Return what the decoder needs beside embeddings (positions, masks, features for deeper layers)."""
        return {}

    def embed(self, model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the decoder's inputs [B, T, H], image tokens replaced by features, and its other arguments.

        `batch` comes from `forward.on_device`; `seen` in it spares the vision tower. Of a `blank` batch's picture nothing
        is placed.

        Raises:
            InputError: pictures and image tokens do not match.
        """
        embeds_BTH = base_of(model).get_input_embeddings()(batch["input_ids"])
        seen, wanted = batch.get("seen"), batch["image_at"][0].shape[0]
        if seen is None and batch["media"]:
            seen = self.see(model, batch["media"])
        if seen is None:
            if wanted:
                raise InputError(f"the batch has {wanted} image tokens and no picture.")
            return embeds_BTH, self.arguments(model, batch, None)
        shown_RH = self.connect(model, seen, batch["media"]).to(embeds_BTH.dtype)
        if batch.get("blank"):
            shown_RH = shown_RH[:wanted]
        if shown_RH.shape[0] != wanted:
            raise InputError(f"the batch has {wanted} image tokens, its pictures give {shown_RH.shape[0]}.")
        return embeds_BTH.index_put(batch["image_at"], shown_RH), self.arguments(model, batch, seen)

    def decode(self, model: Any, embeds_BTH: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        """Return the decoder's last hidden states [B, T, H], by Hugging Face's own code.

        No mask of pads is given: rows are padded on the right, so the causal mask, and its faster kernels, are exact for
        all but pads.
        """
        return self.decoder(model)(inputs_embeds=embeds_BTH, use_cache=False, **arguments).last_hidden_state

    def generating(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Return a left-padded batch as the model's own `generate` takes it."""
        return {n: batch[n] for n in ("input_ids", "attention_mask")} | batch["media"]

    def owner(self, batch: Batch, rows: int) -> torch.Tensor:
        """Return the row of the batch that each of `rows` leading rows of a tensor in `vision` or the connector belongs to.

        Pictures, their tiles or patches, or groups of these.

        Raises:
            InputError: the tensor is none of these, so that its gradients could not be told apart.
        """
        owner_I = batch["image_owner"]
        for counts_I in ([1] * len(owner_I), *(c.tolist() for c in batch.get("media_counts", {}).values())):
            group, rest = divmod(sum(counts_I), rows)
            if group and not rest and not any(c % group for c in counts_I):
                each = torch.tensor(counts_I, device=owner_I.device) // group
                return owner_I if rows == len(owner_I) else owner_I.repeat_interleave(each)
        raise InputError(f"{self.label}: gradients of {rows} rows cannot be told apart by the batch's pictures.")


@dataclass(frozen=True)
class Layout:
    """Another program's names of a model's tensors: `theirs` says of a tensor's name whether it is one of them.

    `alias` returns a module's name in that program, None for modules that it does not have. `beside`: an adapter of it
    always has other trained weights beside it.
    """

    theirs: Callable[[str], bool]
    alias: Callable[[str], str | None]
    beside: bool = False


def base_of(model: Any) -> Any:
    """Return the plain model inside a PEFT wrapper (its adapters stay in place)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _module(model: Any, name: str) -> Any:
    return base_of(model).get_submodule(name)
