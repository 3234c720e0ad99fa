"""LLaVA of 13B's shape, and of heads 24 wide, on a GPU in bf16: the lean decoder's kernels at sizes that people have."""

import numpy as np
import pytest
import torch
from batches import make_batch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from vinnow.models.components import add_lora
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.specs import LoraSpec
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.gradients import LEAN, GradientTap

# width, heads, feed-forward width, layers, GiB of weights a layer
SHAPES = {"13B": (5120, 40, 13824, 40, 0.6), "heads 24 wide": (960, 40, 2560, 4, 0.1)}
ROWS = (0, 1, 4)


def on_gpu(shape):
    """Random weights, made there in bf16; of as many layers as fit beside what they compute."""
    width, heads, ffn, layers, each = SHAPES[shape]
    free, _ = torch.cuda.mem_get_info()
    layers = min(layers, max(2, int((free / 2**30 - 12) / each)))
    text = LlamaConfig(
        vocab_size=32064,
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        pad_token_id=3,
    )
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=112,
        patch_size=14,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = LlavaForConditionalGeneration(config)
            model = add_lora(model, LoraSpec(r=16, alpha=32, dropout=0.0, init="gaussian"))
    finally:
        torch.set_default_dtype(torch.float32)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.to("cuda", torch.bfloat16).eval()


@pytest.mark.gpu
@pytest.mark.parametrize("shape", list(SHAPES))
def test_gradients_and_trajectories_of_large_shapes(shape):
    model = on_gpu(shape)
    batch = make_batch(model.get_base_model(), ROWS)
    tap = GradientTap(model, "projector+lora", ProjectionConfig(kind="sjlt", dim=1024))
    got = tap(batch)
    assert tap.facts()["ran"] == {LEAN: len(ROWS)}
    theirs = GradientTap(model, "projector+lora", ProjectionConfig(kind="sjlt", dim=1024), fast=False)(batch)
    alone = np.concatenate([tap(make_batch(model.get_base_model(), [row])) for row in ROWS])
    for other in (theirs, alone):
        norms = np.linalg.norm(got, axis=1) * np.linalg.norm(other, axis=1)
        assert np.isfinite(norms).all()
        assert ((got * other).sum(1) > 0.98 * norms).all()
    values = AttentionTap(model, 5, "flat")(batch)
    alone = np.concatenate([AttentionTap(model, 5, "flat")(make_batch(model.get_base_model(), [row])) for row in ROWS])
    np.testing.assert_allclose(values, alone, rtol=0.05, atol=1e-2)
    assert (values[:, 0] > 0).all()
