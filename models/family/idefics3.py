"""Idefics3: pictures cut into squares that stand in the text by row and column, each a fixed number of tokens.

Axes: N squares, R image tokens, S pixels a side.
"""

from types import SimpleNamespace
from typing import Any

import torch

from ...pool.vision import USUAL
from ..protocol import Batch, Components, base_of
from .of_hf.family import HFFamily, unlike
from .of_hf.processor import FolderProcessor, known
from .of_hf.reader import PIXELS
from .of_idefics.tiles import AROUND, IMAGE, WHOLE, Tiles, grid, names, padded, tokens_of, zero_colour

# what ends a turn in the model's own template, whose words these are, for texts and pictures alone
END = "<end_of_utterance>"
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# squares a longer side in the processors that models of this family come with
_SQUARES = 4


class Idefics3(HFFamily):
    """`Idefics3ForConditionalGeneration`."""

    name = "idefics3"
    kinds: tuple[str, ...] = ("idefics3",)
    label = "Idefics3 (Idefics3ForConditionalGeneration)"
    hf = "Idefics3ForConditionalGeneration"
    components = Components(
        vision=("model.vision_model",),
        connector=("model.connector",),
        decoder=("model.text_model",),
        head=("lm_head",),
    )

    def image_processor(self) -> Any:
        """Return Idefics3's."""
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

        return Idefics3ImageProcessorPil

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name image tokens, squares and their tokens that differ, and colours that the model's own code would drop."""
        vision, images, image = config.vision_config, processor.image_processor, names(processor.tokenizer)[0]
        patches = int(images.max_image_size["longest_edge"]) // vision.patch_size
        faults = unlike({"image_token_id": (config.image_token_id, known(processor.tokenizer, image))}, "the tokenizer")
        if patches % config.scale_factor or (patches // config.scale_factor) ** 2 != tokens_of(processor):
            faults.append(
                f"the image processor's squares of {images.max_image_size['longest_edge']} pixels are {patches}² patches, "
                f"merged {config.scale_factor}² at a time, processor_config.json has image_seq_len {tokens_of(processor)}"
            )
        if zero_colour(images):
            faults.append(
                f"the image processor's image_mean {images.image_mean} makes a picture of one colour all zeros, which "
                "the model's own code takes for padding and leaves out"
            )
        return faults

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two layers of tower and decoder, squares of 32 pixels, at most two by two of a picture."""
        from .of_hf.tiny import drawn, words, write

        places = tuple(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))
        tokenizer = words(texts, (IMAGE, AROUND, WHOLE, *places, "<|im_start|>", "<|im_end|>"), END)
        images = self.image_processor()(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
        vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        vision |= {"image_size": 32, "patch_size": 8}
        text = {"model_type": "llama", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
        text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
        text |= {"initializer_range": 0.1}  # so that answers to different questions differ
        ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        settings = {"image_seq_len": 4, "processor_class": self.hf.replace("ForConditionalGeneration", "Processor")}
        import transformers

        config = transformers.AutoConfig.for_model(
            self.kinds[0], vision_config=vision, text_config=text | ends, image_token_id=known(tokenizer, IMAGE)
        )
        processor = FolderProcessor(self.name, tokenizer, images, settings)
        return write(out, drawn(self.class_of(config)), config, processor, TEMPLATE)

    def reader(self, processor: FolderProcessor, image_mode: str) -> Tiles:
        """Return what cuts pictures into squares."""
        return Tiles(processor, image_mode, self.label.split(" ", 1)[0])

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return [N, patches, D], of squares that are picture throughout."""
        return base_of(model).model.vision_model(pixel_values=media[PIXELS]).last_hidden_state

    def connect(self, model: Any, seen: torch.Tensor, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the merged patches, square by square."""
        return self.connector(model)(seen).flatten(0, 1)

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return one square of zeros."""
        side = config.vision_config.image_size
        return {PIXELS: torch.zeros(1, 3, side, side)}

    def pictures(self, config: Any, count: int) -> dict[str, torch.Tensor]:
        """Return the squares of pictures of `USUAL` pixels."""
        side = config.vision_config.image_size
        size, square = {"longest_edge": _SQUARES * side}, {"longest_edge": side}
        rows, columns = grid(
            SimpleNamespace(do_image_splitting=True, do_resize=True, size=size, max_image_size=square), USUAL
        )
        return {PIXELS: torch.zeros(count * (rows * columns + 1), 3, side, side)}

    def generating(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Return what `generate` takes: each row's squares, padded."""
        inputs = super().generating(model, batch)
        if not batch["media"]:
            return inputs
        owner_I, counts_I = batch["image_owner"], batch["media_counts"][PIXELS]
        return inputs | {PIXELS: padded(batch["media"][PIXELS], owner_I, counts_I, len(batch["input_ids"]))}


FAMILY = Idefics3
