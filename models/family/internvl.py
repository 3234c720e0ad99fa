"""InternVL 3 and 3.5 in Hugging Face's form: a picture as tiles of one size, each a fixed number of tokens.

A picture's tiles, and the whole of it made small behind them where it has more than one, are the rows of its media.
Pictures alone: no video. Axes: N tiles of a batch, R image tokens, D the tower's width, H the decoder's.
"""

from typing import Any

import torch
from PIL import Image

from ...pool.vision import Size
from ...store.arrays import Array
from ...store.errors import InputError
from ..protocol import Components, base_of
from .of_hf.family import HFFamily, switched_off, unlike
from .of_hf.processor import FolderProcessor, known
from .of_hf.reader import PIXELS, HFReader
from .of_llava import names

START, IMAGE, END = "<img>", "<IMG_CONTEXT>", "</img>"
# how many tokens a tile becomes, in processor_config.json
COUNT = "image_seq_length"
# what Hugging Face's processor always asks of its image processor, whatever that one's own file says
_CUT = {"crop_to_patches": True}
# the words of the model's own chat template, for texts and pictures alone
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Tiles(HFReader):
    """Cuts a picture into the tiles whose grid is nearest to its shape."""

    image, mark = IMAGE, IMAGE

    def __init__(self, processor: FolderProcessor, image_mode: str) -> None:
        super().__init__(processor, image_mode, "InternVL")
        for token in (START, END):
            known(self.tokenizer, token)
        self.tokens = int(self.settings.get(COUNT, 256))

    def expanded(self, size: Size | None) -> str:
        """Return the tokens of all tiles between the marks of one picture."""
        assert size is not None
        tiles = self.images.get_number_of_image_patches(size[1], size[0], _CUT)
        return f"{START}{IMAGE * (self.tokens * tiles)}{END}"

    def cut(self, picture: Image.Image) -> dict[str, Array]:
        """Return the tiles, [tiles, 3, H, W]."""
        return dict(self.images.preprocess(picture, do_rescale=False, do_normalize=False, return_tensors="np", **_CUT))


class InternVL(HFFamily):
    """`InternVLForConditionalGeneration`."""

    name = "internvl"
    kinds = ("internvl",)
    label = "InternVL (InternVLForConditionalGeneration)"
    hf = "InternVLForConditionalGeneration"
    components = Components(
        vision=("model.vision_tower",),
        connector=("model.multi_modal_projector",),
        decoder=("model.language_model",),
        head=("lm_head",),
    )
    # transformers 4.52 named its tensors as it named LLaVA's
    layouts = names.LAYOUTS[1:]
    old = names.OLD

    def image_processor(self) -> Any:
        """Return GOT-OCR 2's, which InternVL takes."""
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        return GotOcr2ImageProcessorPil

    def check_config(self, config: Any) -> None:
        """Refuse patches that cannot be merged, and more than one layer of the tower: Hugging Face's code reads one."""
        if not isinstance(config.vision_feature_layer, int):
            raise InputError(f"vision_feature_layer is {config.vision_feature_layer}: an InternVL reads one layer.")
        side, merged = _patches(config), round(1 / config.downsample_ratio)
        if merged * config.downsample_ratio != 1 or side % merged:
            raise InputError(
                f"downsample_ratio is {config.downsample_ratio}: {side} × {side} patches of a tile cannot be merged so."
            )

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name image tokens, tiles and numbers of tokens that differ."""
        images, (height, width) = processor.image_processor, config.vision_config.image_size
        size, here = dict(images.size), known(processor.tokenizer, IMAGE)
        faults = unlike({"image_token_id": (config.image_token_id, here)}, f"the tokenizer's of {IMAGE} is")
        sizes = {"image_size": ([height, width], [size.get("height"), size.get("width")])}
        faults += unlike(sizes, "the image processor")
        tile, told = int(_patches(config) * config.downsample_ratio) ** 2, int(processor.settings.get(COUNT, 256))
        if tile != told:
            faults.append(f"config.json makes {tile} tokens of a tile, the processor's {COUNT} is {told}")
        return faults + switched_off(images, "do_rescale", "do_normalize")

    def modern(self, name: str, model: Any) -> str:
        """Return the name in memory of a tensor that transformers 4.52 named."""
        return names.modern(name, model)

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two layers of tower and decoder; tiles of 32 pixels, at most four and the whole, become 4 tokens each."""
        from transformers import InternVLConfig

        from .of_hf.tiny import drawn, words, write

        tokenizer = words(texts, (START, END, IMAGE, "<video>", "<|im_start|>", "<|im_end|>"), "<|im_end|>")
        images = self.image_processor()(size={"height": 32, "width": 32}, max_patches=4)
        vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        vision |= {"image_size": [32, 32], "patch_size": [8, 8]}
        text = {"model_type": "qwen3", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
        text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": len(tokenizer)}
        text |= {"max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
        config = InternVLConfig(
            vision_config=vision,
            text_config=text | {"pad_token_id": tokenizer.pad_token_id},
            image_token_id=known(tokenizer, IMAGE),
            image_seq_length=4,
            tie_word_embeddings=False,
        )
        settings = {COUNT: 4, "processor_class": "InternVLProcessor"}
        processor = FolderProcessor(self.name, tokenizer, images, settings)
        return write(out, drawn(self.class_of(config)), config, processor, TEMPLATE)

    def reader(self, processor: FolderProcessor, image_mode: str) -> Tiles:
        """Return what cuts pictures into tiles."""
        return Tiles(processor, image_mode)

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the tower's patches, [N, patches, D]."""
        base = base_of(model)
        config, tower = base.config, base.model.vision_tower
        layer = config.vision_feature_layer
        # the last layer is read behind its norm
        out = tower(media[PIXELS], output_hidden_states=layer != -1)
        seen = out.last_hidden_state if layer == -1 else out.hidden_states[layer]
        return seen[:, 1:] if config.vision_feature_select_strategy == "default" else seen

    def connect(self, model: Any, seen: torch.Tensor, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return patches merged and projected, [R, H], tile by tile."""
        base, side = base_of(model), int(seen.shape[1] ** 0.5)
        merged = base.model.pixel_shuffle(seen.unflatten(1, (side, side)), base.config.downsample_ratio)
        return self.connector(model)(merged.flatten(1, 2)).flatten(0, 1)

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return one tile of zeros; the price of a picture goes by its tiles."""
        return {PIXELS: torch.zeros(1, 3, *config.vision_config.image_size)}


def _patches(config: Any) -> int:
    """Return a tile's patches along a side."""
    vision = config.vision_config
    return int(vision.image_size[0]) // int(vision.patch_size[0])


FAMILY = InternVL
