"""What a GPU does otherwise than a CPU (kernels, compiled parts), on shapes that are no powers of two.

Head widths, head counts, grouped keys, feed-forward widths and vocabularies as models have them, one row, one token: every
tap against the same tap on a CPU in float64.
"""

import pytest
import torch
from batches import make_batch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from vinnow.models.components import add_lora
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.specs import LoraSpec
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.forward import EmbeddingTap, LossTap
from vinnow.models.taps.gradients import GradientTap
from vinnow.models.taps.singular import gram, iterated

# hidden size, heads, key heads, head width, feed-forward width
SHAPES = {
    "the demo's": (96, 4, 4, 24, 192),
    "three heads": (60, 3, 3, 20, 77),
    "one key head": (100, 5, 1, 20, 130),
    "narrow": (42, 7, 7, 6, 99),
    "wider than the model": (48, 2, 1, 40, 65),
    "two wide": (18, 9, 3, 2, 33),
    "a 7B head": (256, 2, 2, 128, 384),
    "a 3B head": (160, 2, 2, 80, 200),
}
GRADIENTS = {
    "rademacher": ProjectionConfig(kind="rademacher", dim=96),
    "sjlt": ProjectionConfig(kind="sjlt", dim=64, nonzeros=2),
    "kron": ProjectionConfig(kind="kron", dim=96),
    "none": ProjectionConfig(kind="none"),
}


def model_of(shape, lora=False):
    hidden, heads, keys, width, ffn = SHAPES[shape]
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=311,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        head_dim=width,
        initializer_range=0.1,
        pad_token_id=3,
    )
    vision = CLIPVisionConfig(
        hidden_size=36, intermediate_size=50, num_hidden_layers=2, num_attention_heads=3, image_size=20, patch_size=4
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=310)
    model = LlavaForConditionalGeneration(config)
    if lora:
        model = add_lora(model, LoraSpec(r=3, alpha=5, dropout=0.0, init="gaussian"))
        for name, p in model.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(p, std=0.05)
    return model.double().eval()


def one_token(model):
    """A batch of one row: a picture and one answer token behind it."""
    batch = make_batch(model, [0])
    keep = int((batch["input_ids"] == 310).nonzero()[-1, 1]) + 2
    batch |= {k: batch[k][:, :keep] for k in ("input_ids", "attention_mask")}
    batch["labels"] = torch.full((1, keep), -100)
    batch["labels"][0, -1] = batch["input_ids"][0, -1]
    return batch


def batches(model):
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return [make_batch(base), make_batch(base, [1]), make_batch(base, [3]), one_token(base)]


def taps(model, lora):
    which = "projector+lora" if lora else r"re:language_model|lm_head|projector|fc1"
    for projection in GRADIENTS.values():
        yield GradientTap(model, which, projection)
    if not lora:
        yield from (AttentionTap(model, k, reading) for reading in ("flat", "heads") for k in (5, 40))
        yield from (LossTap(model), EmbeddingTap(model, "both"))


def values(model, lora, dtype, device):
    model = model.to(dtype).to(device)
    return [torch.from_numpy(tap(batch)).double() for tap in taps(model, lora) for batch in batches(model)]


@pytest.mark.gpu
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_tap_gives_on_a_gpu_what_it_gives_on_a_cpu(shape, lora, dtype):
    expected = values(model_of(shape, lora), lora, torch.float64, "cpu")
    got = values(model_of(shape, lora), lora, dtype, "cuda")
    assert len(got) == len(expected) > 0
    assert sum(bool(e.any()) for e in expected) > len(expected) // 2
    # hooks' sums and RMSNorm stay in float32 inside, also of a float64 model
    limit = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 0.1}[dtype]
    for number, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        assert mine.isfinite().all(), number
        assert (mine - theirs).norm() <= limit * theirs.norm() + 1e-9, number


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("tokens", "heads", "width"),
    [(1, 1, 2), (1, 3, 24), (7, 5, 6), (5, 2, 72), (33, 7, 80), (3, 3, 96), (9, 32, 128), (4, 2, 256)],
)
@pytest.mark.parametrize("tables", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_rotary_kernel_turns_any_heads_both_ways(tokens, heads, width, tables, dtype):
    from vinnow.models.taps.kernels import Rotate

    torch.manual_seed(0)
    # laid out as attention's kernels leave it, and a slice of something wider
    x = torch.randn(2, heads, tokens, width + 2, dtype=dtype, device="cuda").transpose(1, 2)[..., 1:-1].requires_grad_()
    # one table for both rows, or a row each, as pictures' positions have it
    cos, sin = torch.randn(2, tables, tokens, width, dtype=dtype, device="cuda")
    cos, sin = (torch.cat((v[..., : width // 2], v[..., : width // 2]), -1) for v in (cos, sin))
    # a leaf in float64: a bfloat16 leaf would add its gradient's parts in bfloat16
    exact = x.detach().double().requires_grad_()
    first, second = exact.chunk(2, -1)
    expected = exact * cos.double()[:, :, None] + torch.cat((-second, first), -1) * sin.double()[:, :, None]
    got = Rotate.apply(x, cos, sin)
    close = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    if dtype == torch.float64:
        close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(got.double(), expected, **close)
    # a gradient whose last axis is not dense
    upstream = torch.randn(2, tokens, width, heads, dtype=dtype, device="cuda").transpose(2, 3)
    (mine,) = torch.autograd.grad(got, x, upstream)
    (theirs,) = torch.autograd.grad(expected, exact, upstream.double())
    torch.testing.assert_close(mine.double(), theirs, **close)


@pytest.mark.parametrize("k", [12, 13, 24, 25, 40, 60])
def test_more_values_than_the_iteration_holds_are_exact(k):
    blocks = torch.rand(2, 70, 50, generator=torch.Generator().manual_seed(0)).double()
    got, bad = iterated(gram(blocks), k)
    expected = nn.functional.pad(torch.linalg.svdvals(blocks)[:, :k], (0, max(0, k - 50)))
    assert torch.allclose(got[~bad], expected[~bad], rtol=1e-6, atol=1e-6)
    assert k <= 12 or not bad.any()
