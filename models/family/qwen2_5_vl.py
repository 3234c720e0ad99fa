"""Qwen2.5-VL: pictures of any size as flat patches, two by two merged into tokens, and positions of three axes (M-RoPE).

The merger lies inside the tower and ends its pass, so both are one step here, and checkpoints share it only where both are
equal. Pictures alone: no video. Axes: I pictures, P patches of a picture or batch, T tokens.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...pool.encode import EncodeError
from ...pool.vision import USUAL, Size
from ...store.arrays import Array
from ...store.errors import InputError, suggest
from ...store.reading import wrong
from ..folders import LOCAL, chain, processor_folder
from ..protocol import Batch, Components, Family, base_of
from .of_qwen.windows import group_windows

PIXELS, GRID = "pixel_values", "image_grid_thw"
START, IMAGE, END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
# a batch's image tokens as Hugging Face's own code is told of them
KINDS = "mm_token_type_ids"


class QwenProcessor:
    """Tokenizer and image processor (the PIL one); what else lies beside them (chat template, video) is copied on."""

    def __init__(self, tokenizer: Any, images: Any, folder: Path | None = None) -> None:
        self.tokenizer, self.image_processor, self.folder = tokenizer, images, folder

    def save_pretrained(self, folder: str) -> None:
        """Write both, and copy the files that only other programs read."""
        for pattern in ("*template*", "video_preprocessor_config.json", "processor_config.json"):
            for file in self.folder.glob(pattern) if self.folder is not None else ():
                if file.is_file():
                    shutil.copyfile(file, Path(folder, file.name))
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


class Patches:
    """Cuts pictures into patches as the processor does; bytes are normalised later."""

    def __init__(self, processor: QwenProcessor, image_mode: str) -> None:
        if image_mode not in ("pad", "square"):
            raise InputError(f"unknown image mode {image_mode!r}{suggest(image_mode, ('pad', 'square'))}")
        if image_mode == "square":
            raise InputError("image mode 'square': Qwen2.5-VL takes pictures as they are; leave the mode as it is.")
        self.tokenizer, self.images, self.image_mode = processor.tokenizer, processor.image_processor, image_mode
        self.fixed: int | None = None
        self.mark, self.around = START + IMAGE + END, ("", "")
        self.start, self.image_id, self.end = (_known(self.tokenizer, token) for token in (START, IMAGE, END))

    def ids(self, size: Size | None) -> list[int]:
        """Return the marks around a picture's tokens, of which there are as many as merged patches."""
        assert size is not None
        try:
            patches = self.images.get_number_of_image_patches(size[1], size[0])
        except ValueError as error:  # of a picture that is too long
            raise EncodeError(f"a picture of {size[0]} × {size[1]} pixels: {error}.") from error
        return [self.start, *[self.image_id] * (patches // self.images.merge_size**2), self.end]

    def prepare(self, picture: Image.Image) -> dict[str, Array]:
        """Return patches uint8 [P, values] and their grid i64 [1, 3]."""
        try:
            cut = self.images.preprocess(picture, do_rescale=False, do_normalize=False, return_tensors="np")
        except ValueError as error:
            raise EncodeError(f"a picture of {picture.width} × {picture.height} pixels: {error}.") from error
        return {PIXELS: np.clip(np.rint(cut[PIXELS]), 0, 255).astype(np.uint8), GRID: cut[GRID]}

    def finish(self, media: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the media, patches scaled and normalised."""
        if not media:
            return media
        patches = media[PIXELS]
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=patches.device)[:, None]
            for v in (self.images.image_mean, self.images.image_std)
        )
        # a patch's values lie colour by colour
        by_colour = patches.float().mul_(float(self.images.rescale_factor)).unflatten(1, (3, -1))
        return media | {PIXELS: ((by_colour - mean) / std).flatten(1)}


class Qwen25VL(Family):
    """`Qwen2_5_VLForConditionalGeneration`."""

    name = "qwen2_5_vl"
    kinds = ("qwen2_5_vl",)
    label = "Qwen2.5-VL (Qwen2_5_VLForConditionalGeneration)"
    processors = ("QwenProcessor",)
    components = Components(
        vision=("model.visual",),
        connector=("model.visual.merger",),
        decoder=("model.language_model",),
        head=("lm_head",),
    )

    def class_of(self, config: Any) -> Any:
        """Return Hugging Face's class."""
        from transformers import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration

    def load_processor(self, folder: Path) -> QwenProcessor:
        """Return tokenizer and image processor."""
        from transformers import AutoTokenizer
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
            images = Qwen2VLImageProcessorPil.from_pretrained(folder, **LOCAL)
        except Exception as error:  # the tokenizers library raises bare ones on a damaged file
            kind = type(error).__name__
            raise InputError(
                f"{str(folder)!r} has no usable tokenizer or image processor: {kind}: {wrong(error)}."
            ) from error
        return QwenProcessor(tokenizer, images, folder)

    def check_fit(self, config: Any, processor: QwenProcessor, path: str) -> None:
        """See `Family.check_fit`: image token, vocabulary, and how pictures are cut."""
        words, images, vision = processor.tokenizer, processor.image_processor, config.vision_config
        here = _known(words, IMAGE)
        told = {n: getattr(vision, n) for n in ("patch_size", "temporal_patch_size", "spatial_merge_size")}
        cut = dict(zip(told, (images.patch_size, images.temporal_patch_size, images.merge_size), strict=True))
        top, rows = max(words.get_vocab().values(), default=0), config.get_text_config().vocab_size
        faults = [f"config.json has {n} {told[n]}, the image processor {cut[n]}" for n in told if told[n] != cut[n]]
        if config.image_token_id != here:
            faults.append(
                f"config.json has image_token_id {config.image_token_id}, the tokenizer's of {IMAGE} is {here}"
            )
        if top >= rows:
            faults.append(f"config.json has vocab_size {rows}, the tokenizer's ids go up to {top}")
        if faults:
            raise InputError(
                f"{str(chain(path)[-1] / 'config.json')!r} and the processor in {str(processor_folder(path))!r} do not go "
                f"together: {'; '.join(faults)}. Put the model's own processor files beside it, or mend what is wrong."
            )

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two layers of tower and decoder, patches of 8 pixels."""
        from transformers import Qwen2_5_VLConfig
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        from ..specs import TinyModelConfig
        from .of_llava.tiny import train_tokenizer

        tokenizer = train_tokenizer(texts, TinyModelConfig(llm="qwen2"), (START, IMAGE, END))
        size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        images = Qwen2VLImageProcessorPil(patch_size=8, size=size)
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 48}
        vision |= {"patch_size": 8, "window_size": 32, "fullatt_block_indexes": [1]}
        text = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        text |= {"num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 512}
        text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 1e4}}
        ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        start, image, end = (_known(tokenizer, token) for token in (START, IMAGE, END))
        marks = {"image_token_id": image, "vision_start_token_id": start, "vision_end_token_id": end}
        config = Qwen2_5_VLConfig(vision_config=vision, text_config=text | ends, **marks, video_token_id=1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.class_of(config)(config)
        model.generation_config.update(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
        model.save_pretrained(out)
        QwenProcessor(tokenizer, images).save_pretrained(out)
        return out

    def template(self, config: Any, tokenizer: Any) -> str:
        """Return ChatML."""
        return "chatml"

    def reader(self, processor: QwenProcessor, image_mode: str) -> Patches:
        """Return what cuts pictures into patches."""
        return Patches(processor, image_mode)

    def image_id(self, config: Any) -> int:
        """Return `image_token_id`."""
        return config.image_token_id

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the merged tokens, [R, H]: the merger ends the tower's own pass."""
        tower = base_of(model).model.visual
        group_windows(tower)
        return tower(media[PIXELS], grid_thw=media[GRID]).pooler_output

    def connect(self, model: Any, seen: torch.Tensor, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return them as they are."""
        return seen

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return the patches of one merged token, all zero."""
        vision = config.vision_config
        side, values = vision.spatial_merge_size, vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([[1, side, side]])
        return {PIXELS: torch.zeros(side**2, vision.in_channels * values), GRID: grid}

    def pictures(self, config: Any, count: int) -> dict[str, torch.Tensor]:
        """Return pictures of `USUAL` pixels, cut to whole merged patches."""
        vision = config.vision_config
        side, values = vision.spatial_merge_size, vision.temporal_patch_size * vision.patch_size**2
        width, height = (max(1, round(n / (vision.patch_size * side))) * side for n in USUAL)
        grid = torch.tensor([[1, height, width]]).repeat(count, 1)
        return {PIXELS: torch.zeros(count * height * width, vision.in_channels * values), GRID: grid}

    def arguments(self, model: Any, batch: Batch, seen: Any) -> dict[str, Any]:
        """Return the positions of three axes, [3, B, T]; where no picture is, the decoder's own are the same."""
        if GRID not in batch["media"] or batch.get("blank"):
            return {}
        inner, ids_BT, mask_BT = base_of(model).model, batch["input_ids"], batch["attention_mask"]
        kinds_BT = self.image_mask(base_of(model).config, ids_BT).int()
        places_3BT, _ = inner.get_rope_index(ids_BT, kinds_BT, batch["media"][GRID], attention_mask=mask_BT)
        return {"position_ids": places_3BT}

    def generating(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Return what `generate` takes, which finds positions by the kinds of tokens."""
        kinds_BT = self.image_mask(base_of(model).config, batch["input_ids"]).int()
        return super().generating(model, batch) | ({KINDS: kinds_BT} if batch["media"] else {})


def _known(tokenizer: Any, token: str) -> int:
    number = tokenizer.convert_tokens_to_ids(token)
    if number is None or tokenizer.convert_ids_to_tokens(number) != token:
        raise InputError(f"the tokenizer does not know the token {token!r}; take the one that its model was made with.")
    return int(number)


FAMILY = Qwen25VL
