"""The lean decoder against the decoders of Hugging Face that it knows: one row at a time, autograd, float64.

Rows of three lengths, padded on the right; windows shorter than rows; grouped keys; biases; positions of three axes;
features for deeper layers; image tokens that attend both ways; plain Linears and LoRA around all of them.
"""

from collections import defaultdict

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from vinnow.models.taps.lean import architectures
from vinnow.models.taps.lean.architectures import GROUPS, TABLE, reason_of
from vinnow.models.taps.lean.decoder import LeanDecoder

LENGTHS, WIDTH, WINDOW = (19, 12, 5), 36, 6
LEAVES = [leaf for group in GROUPS for leaf in group]
SIZES = {
    "vocab_size": 64,
    "hidden_size": WIDTH,
    "intermediate_size": 50,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "pad_token_id": 0,
}
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
SLIDES = {"sliding_window": WINDOW, "layer_types": TYPES}
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 1], "rope_theta": 100.0}}
GEMMA = {"head_dim": 10, "query_pre_attn_scalar": 7, "attn_logit_softcapping": None}
BASES = {
    "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
}
# name: decoder, its config, settings
DECODERS = {
    "llama": ("LlamaModel", "LlamaConfig", {"head_dim": 10, "attention_bias": True}),
    "mistral": ("MistralModel", "MistralConfig", {"sliding_window": WINDOW}),
    "mistral, long window": ("MistralModel", "MistralConfig", {"sliding_window": 4096}),
    "qwen2": ("Qwen2Model", "Qwen2Config", {}),
    "qwen2, windows": ("Qwen2Model", "Qwen2Config", {"use_sliding_window": True} | SLIDES),
    "qwen2-vl": ("Qwen2VLTextModel", "Qwen2VLTextConfig", MROPE),
    "qwen2.5-vl": ("Qwen2_5_VLTextModel", "Qwen2_5_VLTextConfig", MROPE),
    "qwen2.5-vl, windows": (
        "Qwen2_5_VLTextModel",
        "Qwen2_5_VLTextConfig",
        {"use_sliding_window": True} | SLIDES | MROPE,
    ),
    "qwen3": ("Qwen3Model", "Qwen3Config", {"head_dim": 10}),
    "qwen3-vl": ("Qwen3VLTextModel", "Qwen3VLTextConfig", {"head_dim": 10} | MROPE),
    "gemma": ("GemmaModel", "GemmaConfig", {"head_dim": 10}),
    "gemma 2": ("Gemma2Model", "Gemma2Config", GEMMA | SLIDES),
    "gemma 3": ("Gemma3TextModel", "Gemma3TextConfig", GEMMA | SLIDES | {"rope_parameters": BASES}),
    "gemma 3, both ways": ("Gemma3TextModel", "Gemma3TextConfig", GEMMA | SLIDES | {"rope_parameters": BASES}),
}
each = pytest.mark.parametrize("name", list(DECODERS))


def decoder_of(name, lora=False, **changes):
    kind, config, settings = DECODERS[name]
    torch.manual_seed(0)
    config = getattr(transformers, config)(**SIZES | settings | changes)
    decoder = class_of(kind)(config)
    decoder.config._attn_implementation = "sdpa"  # Gemma 2 asks for eager, whose softmax is in float32
    for parameter in decoder.parameters():
        if parameter.ndim == 1:  # norms and biases begin at one value
            nn.init.normal_(parameter, mean=0.3, std=0.3)
    if lora:
        get_peft_model(decoder, LoraConfig(r=3, lora_alpha=5, target_modules=LEAVES))
        for parameter_name, parameter in decoder.named_parameters():
            if ".lora_B." in parameter_name:
                nn.init.normal_(parameter, std=0.2)
    return decoder.double().eval().requires_grad_(False)


def class_of(kind):
    for module in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3"):
        models = getattr(transformers.models, module)
        if hasattr(models, kind):
            return getattr(models, kind)
    return getattr(transformers, kind)


@pytest.fixture
def exact_norms(monkeypatch):
    """Hugging Face's norms round to float32 inside; float64 comparisons need them to stay wide."""

    def wide(decoder):
        for module in decoder.modules():
            if type(module).__name__.endswith("RMSNorm"):
                shifted = hasattr(module, "_norm")
                monkeypatch.setattr(type(module), "forward", _shifted if shifted else _plain)
        return decoder

    return wide


def _plain(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def _shifted(self, x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


def arguments_of(name, tokens):
    """What a family of such a decoder gives beside embeddings, for a batch of `LENGTHS`."""
    rng = torch.Generator().manual_seed(5)
    rows = len(LENGTHS)
    shown = torch.zeros(rows, tokens, dtype=torch.bool)
    shown[0, 2:6] = shown[0, 9:11] = shown[2, :3] = True
    if "vl" in name:
        known = {"position_ids": torch.randint(0, 30, (3, rows, tokens), generator=rng)}
        if name == "qwen3-vl":
            deep = [torch.randn(int(shown.sum()), WIDTH, generator=rng).double().requires_grad_() for _ in range(2)]
            known |= {"visual_pos_masks": shown, "deepstack_visual_embeds": deep}
        return known
    if name != "gemma 3, both ways":
        return {}
    place = torch.arange(tokens)
    block = torch.where(shown, (shown & ~shown.roll(1, 1)).cumsum(1), -torch.arange(1, tokens + 1))
    seen = (place[:, None] >= place) | (block[:, :, None] == block[:, None])
    near = seen & (place[:, None] - place < WINDOW)
    return {"attention_mask": {"full_attention": seen[:, None], "sliding_attention": near[:, None]}}


def of_row(arguments, row, length):
    """The same of one row without its pads."""
    one = {}
    if "position_ids" in arguments:
        one["position_ids"] = arguments["position_ids"][:, row : row + 1, :length]
    if "visual_pos_masks" in arguments:
        shown = arguments["visual_pos_masks"]
        first = int(shown[:row].sum())
        mine = slice(first, first + int(shown[row].sum()))
        one["visual_pos_masks"] = shown[row : row + 1, :length]
        one["deepstack_visual_embeds"] = [deep[mine] for deep in arguments["deepstack_visual_embeds"]]
    if "attention_mask" in arguments:
        one["attention_mask"] = {
            kind: mask[row : row + 1, :, :length, :length] for kind, mask in arguments["attention_mask"].items()
        }
    return one


def linears_of(decoder):
    return {n: m for n, m in decoder.layers.named_modules() if isinstance(m, nn.Linear)}


def theirs(decoder, x, arguments, aims):
    """Hidden states, and gradients of each row's own loss by every weight, its embeddings and deep features."""
    linears = linears_of(decoder)
    weights = {n: m.weight for n, m in linears.items()} | {
        f"{n}.bias": m.bias for n, m in linears.items() if m.bias is not None
    }
    for weight in weights.values():
        weight.requires_grad_(True)
    hidden, grads = [], []
    for row, length in enumerate(LENGTHS):
        one = of_row(arguments, row, length)
        into = x[row : row + 1, :length].detach().requires_grad_()
        out = decoder(inputs_embeds=into, use_cache=False, **one).last_hidden_state
        loss = (out[0] * aims[row, :length]).sum()
        wanted = [*weights.values(), into, *arguments.get("deepstack_visual_embeds", [])]
        grads.append(torch.autograd.grad(loss, wanted, allow_unused=True))
        hidden.append(out[0].detach())
    decoder.requires_grad_(False)
    return hidden, [dict(zip([*weights, "embeds", "deep 0", "deep 1"], g)) for g in grads]


def ours(decoder, x, arguments, aims):
    linears, sums = linears_of(decoder), defaultdict(dict)

    def take(name, delta, inputs):
        for row in range(len(LENGTHS)):
            sums[row][name] = delta[row].T @ inputs[row]
            if linears[name].bias is not None:
                sums[row][f"{name}.bias"] = delta[row].sum(0)

    lean = LeanDecoder(decoder, linears, take)
    assert lean.taken == set(linears)
    into = x.detach().requires_grad_()
    assert lean.reason_against(arguments, into) is None
    hidden = lean(into, arguments)
    deep = arguments.get("deepstack_visual_embeds", [])
    got = torch.autograd.grad((hidden * aims).sum(), [into, *deep])
    for row, length in enumerate(LENGTHS):
        sums[row]["embeds"] = got[0][row : row + 1, :length]
    return hidden.detach(), sums, got[1:]


@each
@pytest.mark.parametrize("lora", [False, True])
def test_hidden_states_and_gradients_are_those_of_one_row_at_a_time(name, lora, exact_norms):
    decoder = exact_norms(decoder_of(name, lora))
    assert reason_of(decoder) is None
    rng, tokens = torch.Generator().manual_seed(1), max(LENGTHS)
    x, aims = torch.randn(2, len(LENGTHS), tokens, WIDTH, generator=rng).double()
    for row, length in enumerate(LENGTHS):
        aims[row, length:] = 0
    arguments = arguments_of(name, tokens)
    hidden, expected = theirs(decoder, x, arguments, aims)
    got, sums, deep = ours(decoder, x, arguments, aims)
    for row, length in enumerate(LENGTHS):
        close(got[row, :length], hidden[row], f"row {row}")
        assert sums[row].keys() == {n for n in expected[row] if not n.startswith("deep")}
        for part in sums[row]:
            close(sums[row][part], expected[row][part], f"row {row}, {part}")
    for number, grad in enumerate(deep):
        close(grad, sum(e[f"deep {number}"] for e in expected), f"features of layer {number}")


@each
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_gives_what_a_cpu_gives(name, dtype):
    """Compiled norms and gates, the rotary kernel with a table a row, kernels that take masks."""
    rng, tokens = torch.Generator().manual_seed(1), max(LENGTHS)
    x, aims = torch.randn(2, len(LENGTHS), tokens, WIDTH, generator=rng)
    for row, length in enumerate(LENGTHS):
        aims[row, length:] = 0
    arguments = arguments_of(name, tokens)
    hidden, sums, _ = ours(decoder_of(name, lora=True), x.double(), arguments, aims.double())

    def there(value):
        if isinstance(value, dict):
            return {k: there(v) for k, v in value.items()}
        if isinstance(value, list):
            return [there(v) for v in value]
        return value.to("cuda", dtype if value.is_floating_point() else None)

    got, mine, _ = ours(decoder_of(name, lora=True).to("cuda", dtype), *map(there, (x, arguments, aims)))
    # weights are large, so that every part matters: in bfloat16 a CPU is off by 0.32
    limit = 1e-4 if dtype == torch.float32 else 0.5
    for row, length in enumerate(LENGTHS):
        pairs = [(got[row, :length], hidden[row, :length]), *((mine[row][part], sums[row][part]) for part in sums[row])]
        for gpu, cpu in pairs:
            assert (gpu.double().cpu() - cpu).norm() <= limit * cpu.norm()


def close(mine, theirs, what):
    assert theirs.abs().max() > 0, what
    assert (mine - theirs).abs().max() <= 1e-9 * theirs.abs().max(), what


def test_every_decoder_of_the_table_is_tried():
    assert {kind for kind, _, _ in DECODERS.values()} == set(TABLE)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("gemma 2", {"attn_logit_softcapping": 50.0}, "its attention scores are capped"),
        ("gemma 3", {"use_bidirectional_attention": True}, "its tokens attend both ways"),
        ("llama", {"hidden_act": "relu"}, "layer 0 has the activation ReLU"),
        ("qwen2", {"hidden_act": "gelu"}, "layer 0 has the activation GELUActivation"),
    ],
)
def test_what_it_does_not_know_of_a_config_is_a_reason(name, changes, reason):
    assert reason_of(decoder_of(name, **changes)) == reason


def test_what_it_does_not_know_of_a_model_is_a_reason():
    phi = transformers.PhiModel(transformers.PhiConfig(**SIZES | {"num_key_value_heads": 6}))
    assert reason_of(phi) == "the lean decoder does not know PhiModel"
    hooked, checkpointed, other, wrapped = (decoder_of("qwen3") for _ in range(4))
    hooked.layers[1].self_attn.register_forward_hook(lambda *_: None)
    assert reason_of(hooked) == "something hooks into its module 1.self_attn"
    checkpointed.gradient_checkpointing_enable()
    assert reason_of(checkpointed) == "gradient checkpointing is on"
    other.layers[2].mlp.up_proj = nn.Identity()
    assert reason_of(other) == "layer 2 has Identitys that are no Linears with or without a plain LoRA"
    get_peft_model(wrapped, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    assert "no Linears" in (reason_of(wrapped) or "")
    # what transformers puts on to hand out attentions changes nothing
    recorded = decoder_of("llama")
    recorded(inputs_embeds=torch.randn(1, 4, WIDTH).double(), output_hidden_states=True)
    assert reason_of(recorded) is None


def test_a_class_of_the_same_name_from_elsewhere_is_not_known():
    stranger = type("LlamaModel", (transformers.LlamaModel,), {"__module__": "somebody.models"})
    assert architectures.architecture_of(stranger(transformers.LlamaConfig(**SIZES))) is None


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("llama", {"position_ids": torch.zeros(1, 4)}, "the decoder is told of position_ids"),
        ("qwen3-vl", {"cross": 1, "other": 2}, "the decoder is told of cross, other"),
        ("qwen2.5-vl", {"position_ids": torch.zeros(4, 1, 4)}, "positions have the shape [4, 1, 4]"),
        ("gemma 3", {"attention_mask": torch.ones(1, 4)}, "the mask is none of each kind of layer"),
        ("gemma 3", {"attention_mask": {"full_attention": None}}, "the mask is none of each kind of layer"),
        (
            "gemma 3",
            {"attention_mask": {"full_attention": None, "sliding_attention": torch.ones(1, 4).bool()}},
            "a mask is not one of all pairs of tokens",
        ),
    ],
)
def test_a_batch_that_it_does_not_know_is_left_to_hugging_face(name, arguments, reason):
    lean = LeanDecoder(decoder_of(name), {}, lambda *_: None)
    x = torch.zeros(1, 4, WIDTH).double()
    assert lean.reason_against(arguments, x) == reason
    assert lean.reason_against({}, x) is None
