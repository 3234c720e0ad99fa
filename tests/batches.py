"""A hand-made batch of every awkward kind of row, for the taps' tests."""

import numpy as np
import torch

LENGTHS = [9, 30, 17, 5, 24]  # words of text a row; row 3 has no image, row 2 no trained token


def make_batch(model, rows=(0, 1, 2, 3, 4), seed=0, tokens=None):
    """Mixed lengths, right padding, two or more pictures per batch, one text-only row, one row without labels."""
    tokens = tokens or (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2
    image, vocab = model.config.image_token_id, model.config.text_config.vocab_size
    samples = []
    for i, n in enumerate(LENGTHS):
        rng = np.random.default_rng(seed + i)
        text = rng.integers(10, vocab, n)
        ids = text if i == 3 else np.concatenate([[1], np.full(tokens, image), text])
        labels = np.full(len(ids), -100)
        if i != 2:
            labels[-3:] = ids[-3:]
            labels[-1 - n // 2] = ids[-1 - n // 2]
        side = model.config.vision_config.image_size
        pixels = None if i == 3 else rng.normal(size=(3, side, side))
        samples.append((ids, labels, pixels))
    chosen = [samples[i] for i in rows]
    longest = max(len(s[0]) for s in chosen)

    def pad(x, v):
        return np.concatenate([x, np.full(longest - len(x), v)])

    pixels = [s[2] for s in chosen if s[2] is not None]
    return {
        "input_ids": torch.tensor(np.stack([pad(s[0], 3) for s in chosen])),
        "attention_mask": torch.tensor(np.stack([pad(np.ones(len(s[0])), 0) for s in chosen])).long(),
        "labels": torch.tensor(np.stack([pad(s[1], -100) for s in chosen])),
        "media": {"pixel_values": torch.tensor(np.stack(pixels), dtype=torch.float32)} if pixels else {},
        "image_owner": torch.tensor([r for r, s in enumerate(chosen) if s[2] is not None]),
    }


def inputs_of(batch, *names):
    """What Hugging Face's own forward takes of a batch: these names, and its pictures."""
    return {n: batch[n] for n in names} | batch["media"]
