"""One forward pass in pieces, for training and features alike; what each piece is, the model's family says.

Axes: B rows, T tokens, I pictures, H the decoder's width.
"""

from collections.abc import Callable
from typing import Any

import torch

from ..store.errors import InputError
from .mores import steer
from .protocol import base_of
from .registry import family_of

Batch = dict[str, Any]


def on_device(
    batch: Batch, model: Any, finish: Callable[[Batch], Batch] | None = None, places: bool = True
) -> dict[str, Any]:
    """Move a collated batch to the model's device; values of media take the model's dtype.

    Positions of labels (`label_at`) and image tokens (`image_at`), each a pair of index vectors, and, with `places`, those
    of image tokens and of the text after them by row, are found before moving: a GPU would have to wait for their number.
    `finish` (`Encoder.finish`) makes what the model takes of media that are still bytes, once they are there.

    Raises:
        InputError: rows are not padded on the right, or pictures are bytes and nobody finished them.
    """
    if "label_at" in batch:
        return batch
    first, family = next(model.parameters()), family_of(model)
    valid_BT = batch["attention_mask"].bool()
    image_BT = family.image_mask(base_of(model).config, batch["input_ids"])
    if bool((valid_BT[:, 1:] & ~valid_BT[:, :-1]).any()):
        raise InputError("taps take rows padded on the right: under the causal mask their pads then change nothing.")

    def there(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: there(v) for k, v in value.items()}
        return value.to(first.device, non_blocking=True) if isinstance(value, torch.Tensor) else value

    moved = there(batch)
    moved = moved if finish is None else finish(moved)
    moved["media"] = {n: _as_taken(v, first.dtype) for n, v in moved["media"].items()}
    moved["padded"] = not bool(valid_BT.all())
    if places:
        moved["places"] = there(_places(valid_BT, image_BT & valid_BT))
    extra = {
        "label_at": torch.nonzero(batch["labels"][:, 1:] != -100, as_tuple=True),
        "image_at": torch.nonzero(image_BT, as_tuple=True),
    }
    return moved | {k: tuple(there(i) for i in v) for k, v in extra.items()}


def _as_taken(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if value.dtype == torch.uint8:
        raise InputError("these pictures are bytes, not normalised: call `Encoder.finish` with the batch.")
    return value.to(dtype) if value.is_floating_point() else value


def _places(valid_BT: torch.Tensor, image_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return positions of image tokens and of the text after them, packed to the front of [B, most], and which are real.

    Text after the image: questions and answers, not the system prompt (XMAS's rows). Rows without an image have neither.
    """
    after_BT = image_BT.int().flip(1).cumsum(1).flip(1).eq(0)
    orders = {}
    for name, mask_BT in (("image", image_BT), ("text", valid_BT & after_BT & image_BT.any(1, keepdim=True))):
        order_BM = mask_BT.int().argsort(dim=1, descending=True, stable=True)[:, : int(mask_BT.sum(1).max())]
        orders |= {name: order_BM, f"{name}_real": mask_BT.gather(1, order_BM)}
    return orders


@torch.no_grad()
def seen_once(model: Any, media: dict[str, torch.Tensor]) -> Any:
    """Return what the connector reads of a batch's pictures (`seen` of a batch); equal for all checkpoints of one tower."""
    return family_of(model).see(model, media)


def embed(model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the decoder's inputs [B, T, H] of a batch from `on_device`, and its other arguments; see `Family.embed`."""
    steer(model, batch["input_ids"])
    return family_of(model).embed(model, batch)


def decode(model: Any, embeds_BTH: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
    """Return the last hidden states [B, T, H]; the LM head is not applied."""
    return family_of(model).decode(model, embeds_BTH, arguments)


def last_hidden(model: Any, batch: Batch) -> torch.Tensor:
    """Return the last hidden states [B, T, H] of a batch from `on_device`."""
    return decode(model, *embed(model, batch))


def with_blank(batch: Batch, model: Any) -> Batch:
    """Return a batch from `on_device` that has pictures: without any, a blank one, of which nothing is placed."""
    if batch["media"]:
        return batch
    # asked of no module: under ZeRO-3 that would gather it, on this rank alone, while the others wait elsewhere
    first = next(model.parameters())
    media = {
        n: v.to(first.device, first.dtype if v.is_floating_point() else None)
        for n, v in family_of(model).blank(base_of(model).config).items()
    }
    return batch | {"media": media, "blank": True}
