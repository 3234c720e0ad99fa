"""Whether a LLaVA's config and its processor mean the same picture, the same words and the same number of tokens.

Neither Hugging Face's classes nor ours would notice otherwise: pictures get the wrong places, or none.
"""

from pathlib import Path
from typing import Any

from ....store.errors import InputError
from ...folders import chain, processor_folder, read_object
from .connectors import connector_of
from .pictures import count_image_tokens
from .towers import TOWERS

# what is done to every picture (pictures.py)
_ALWAYS = ("do_rescale", "do_normalize")


def check_fit(config: Any, processor: Any, path: str) -> None:
    """Refuse a checkpoint whose config and processor disagree.

    Raises:
        InputError: names both files and their fields: image token, patch size, picture size, select strategy, number of
            tokens per picture, vocabulary, pad token.
    """
    root, home = chain(path)[-1], processor_folder(path)
    faults = [
        *_token_faults(config, processor, read_object(root / "config.json"), home),
        *_word_faults(config, processor),
        *_picture_faults(config, processor, home),
    ]
    # the rest follows from these
    faults = faults or _count_faults(config, processor, home)
    if faults:
        raise InputError(
            f"{str(root / 'config.json')!r} and the processor in {str(home)!r} do not go together: {'; '.join(faults)}. "
            "Put the model's own processor files beside it, or mend what is wrong."
        )


def _token_faults(config: Any, processor: Any, raw: dict[str, Any], home: Path) -> list[str]:
    tokenizer, token = processor.tokenizer, processor.image_token
    file = home / "processor_config.json"
    asked = read_object(file).get("image_token") if file.is_file() else None
    if asked is not None and asked != token:
        return [f"processor_config.json has image_token {asked!r}, tokenizer_config.json has {token!r}"]
    here = processor.image_token_id
    if here is None or tokenizer.convert_ids_to_tokens(int(here)) != token:
        return [f"the tokenizer does not know the image token {token!r} (processor_config.json: image_token)"]
    # either name may stand in the file, or both
    said = {n: raw[n] for n in ("image_token_id", "image_token_index") if raw.get(n) is not None}
    said = said or {"image_token_index (by default)": config.image_token_id}
    faults = [
        f"config.json has {name} {value}, the tokenizer's id of {token!r} is {here}"
        for name, value in said.items()
        if value != here
    ]
    pad = tokenizer.pad_token_id
    if pad is not None and pad == here:
        faults.append(f"tokenizer_config.json has the image token {token!r} as pad_token: pads would count as pictures")
    return faults


def _word_faults(config: Any, processor: Any) -> list[str]:
    tokenizer, rows = processor.tokenizer, config.text_config.vocab_size
    top = max(tokenizer.get_vocab().values(), default=0)
    faults = []
    if top >= rows:
        faults.append(f"config.json has text_config.vocab_size {rows}, the tokenizer's ids go up to {top}")
    pad = tokenizer.pad_token_id
    for name, section in (("pad_token_id", config), ("text_config.pad_token_id", config.text_config)):
        told = getattr(section, "pad_token_id", None)
        if told is not None and told >= 0 and pad is not None and told != pad:
            faults.append(f"config.json has {name} {told}, the tokenizer's pad_token {tokenizer.pad_token!r} is {pad}")
    return faults


def _picture_faults(config: Any, processor: Any, home: Path) -> list[str]:
    images, vision, file = processor.image_processor, config.vision_config, _picture_file(home)
    crop = _side(images.crop_size)
    faults = []
    if crop is None or not (images.do_center_crop or crop == _side(images.size)):
        # what is resized would be fed as it is
        return [f"{file} does not say one height and width of a picture: crop_size, and do_center_crop true"]
    told = getattr(vision, "image_size", None)
    tower = next((t for t in TOWERS.values() if t.kind == vision.model_type), None)
    flexible = tower is not None and tower.flexible
    if isinstance(told, int) and crop != (told, told) and not flexible:
        faults.append(
            f"config.json has vision_config.image_size {told}, {file} makes pictures of {crop[0]} × {crop[1]} (crop_size)"
        )
    least = min(_sides(images.size), default=0)
    if images.do_resize and images.do_center_crop and 0 < least < max(crop):
        faults.append(f"{file} has size {least}, less than crop_size {max(crop)}: pictures would get a black border")
    faults += [
        f"{file} has {n} false, and pictures are always so treated" for n in _ALWAYS if getattr(images, n) is False
    ]
    if processor.patch_size != vision.patch_size:
        faults.append(
            f"config.json has vision_config.patch_size {vision.patch_size}, processor_config.json has patch_size "
            f"{processor.patch_size!r}"
        )
    layers = config.vision_feature_layer
    astray = [n for n in ([layers] if isinstance(layers, int) else layers) if not _within(n, vision)]
    if astray:
        faults.append(f"config.json has vision_feature_layer {layers}, the tower has {vision.num_hidden_layers} layers")
    asked, told = processor.vision_feature_select_strategy, config.vision_feature_select_strategy
    # a connector with queries gives their number, whatever it is fed (processor.py)
    if asked != told and connector_of(config).linears() is not None:
        faults.append(f"config.json has vision_feature_select_strategy {told!r}, processor_config.json has {asked!r}")
    return faults


def _count_faults(config: Any, processor: Any, home: Path) -> list[str]:
    """Compare the image tokens that the processor counts with the features that the model makes of a picture."""
    try:
        counted = count_image_tokens(processor)
    except InputError as error:
        return [str(error).rstrip(".")]
    vision = config.vision_config
    tower = next((t for t in TOWERS.values() if t.kind == vision.model_type), None)
    if tower is None:  # a tower that no table describes: its own forward pass must tell
        return []
    crop = processor.image_processor.crop_size
    patches = (crop["height"] // vision.patch_size) * (crop["width"] // vision.patch_size)
    kept = patches + tower.extra - (config.vision_feature_select_strategy == "default")
    tokens = connector_of(config).tokens(kept)
    if tokens == counted:
        return []
    extra = processor.num_additional_image_tokens or 0
    return [
        f"processor_config.json has num_additional_image_tokens {extra}, by which a picture is {counted} tokens; the model "
        f"makes {tokens} of it, so it must be {extra + tokens - counted}"
    ]


def _within(layer: int, vision: Any) -> bool:
    count = getattr(vision, "num_hidden_layers", None)
    return count is None or -count - 1 <= layer <= count


def _sides(size: Any) -> list[int]:
    return [int(n) for n in (_get(size, "height"), _get(size, "width"), _get(size, "shortest_edge")) if n]


def _side(size: Any) -> tuple[int, int] | None:
    height, width = _get(size, "height"), _get(size, "width")
    return (int(height), int(width)) if height and width else None


def _get(size: Any, name: str) -> Any:
    return size.get(name) if isinstance(size, dict) else getattr(size, name, None)


def _picture_file(home: Path) -> str:
    file = "preprocessor_config.json"
    return file if (home / file).is_file() else "processor_config.json"
