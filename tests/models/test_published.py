"""`attention: xmas` against values that XMAS's own released code gave (data/xmas_attention.json: what, where, how)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import make_batch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from vinnow.actors.config import FeatureConfig
from vinnow.models.load import load
from vinnow.models.taps.attention import AttentionTap
from vinnow.store.errors import InputError

DATA = Path(__file__).parent / "data"
SETS = json.loads((DATA / "xmas_attention.json").read_text())["sets"]
IMAGE, PAD, TOKENS = 299, 3, 576


def model_of(entry):
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=48, patch_size=2
    )
    text = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=entry["kv_heads"],
        pad_token_id=PAD,
    )
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE))
    model.load_state_dict(load_file(DATA / entry["weights"]))
    return model.eval()


def batch_of(entry):
    """The rows as vinnow collates them: pictures already grown, padded to the longest."""
    rows = [row["before"] + [IMAGE] * TOKENS * row["picture"] + row["after"] for row in entry["rows"]]
    longest = max(map(len, rows))
    owner = torch.tensor([i for i, row in enumerate(entry["rows"]) if row["picture"]])
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "labels": torch.full_like(ids, -100),
        "media": {"pixel_values": load_file(DATA / "xmas_pixels.safetensors")["pixels"].float()[: len(owner)]},
        "image_owner": owner,
    }


@pytest.mark.parametrize("name", list(SETS))
def test_values_are_those_of_the_release(name):
    entry = SETS[name]
    tap, batch = AttentionTap(model_of(entry), 5, "xmas"), batch_of(entry)
    before = torch.get_rng_state()
    got = tap(batch)
    np.testing.assert_allclose(got, entry["official"], rtol=1e-5)
    assert torch.equal(before, torch.get_rng_state())  # the caller's random numbers are left alone


def test_the_paper_and_the_release_differ():
    entry = SETS["grouped keys"]
    flat = AttentionTap(model_of(entry), 5, "flat")(batch_of(entry))
    assert (np.abs(flat / np.array(entry["official"]) - 1).max(1) > 0.01).all()


def test_two_checkpoints_side_by_side_do_not_share_their_random_start():
    entry = SETS["eight pictures"]
    batch = batch_of(entry)
    alone = AttentionTap(model_of(entry), 5, "xmas")
    expected = [alone(batch), alone(batch)]
    assert not np.array_equal(*expected)  # the second batch has another start
    taps = [AttentionTap(model_of(entry), 5, "xmas") for _ in range(2)]
    for number in range(2):
        for tap in taps:
            np.testing.assert_array_equal(tap(batch), expected[number])
    alone.sketch.restart()
    np.testing.assert_array_equal(alone(batch), expected[0])


def test_a_batch_too_short_for_the_fixed_cut_gives_nothing(tiny_model):
    model = load(tiny_model).model
    assert not AttentionTap(model, 5, "xmas")(make_batch(model)).any()


def test_parts_that_would_cut_a_batch_are_refused():
    with pytest.raises(InputError, match="multiple of 8"):
        FeatureConfig.parse({"kind": "trajectory", "attention": "xmas", "rows_per_part": 100})
