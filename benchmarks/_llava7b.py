"""LLaVA-1.5-7B's shape with random weights, and rows for it: what the GPU benchmarks measure on."""

from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from vinnow.models.family.of_llava.llms import LORA_TARGETS
from vinnow.pool.collate import collate
from vinnow.pool.encode import Encoded

IMAGE_ID, IMAGE_TOKENS, SIDE = 32000, 576, 336


def clip() -> CLIPVisionConfig:
    """Return CLIP-L/14 at 336 pixels."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=SIDE,
        patch_size=14,
        projection_dim=768,
    )


def on_gpu(config: LlavaConfig, seed: int = 0, attn: str = "sdpa") -> Any:
    """Return a model with random weights, made on the GPU in bf16."""
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attn)
    torch.set_default_dtype(torch.float32)
    return model


def config_7b() -> LlavaConfig:
    """Return LLaVA-1.5-7B's config: CLIP-L/14 at 336, two-layer GELU projector, LLaMA-7B."""
    text = LlamaConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
    )
    return LlavaConfig(vision_config=clip(), text_config=text, image_token_index=IMAGE_ID, vision_feature_layer=-2)


def build(rank: int = 128) -> Any:
    """Return the model with LoRA on every Linear of the LLM, bf16 on the GPU; B is not zero, or dA would be."""
    model = on_gpu(config_7b())
    if rank:
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LORA_TARGETS)
        model = get_peft_model(model, lora, autocast_adapter_dtype=False)
        model.to("cuda", torch.bfloat16)
        fill_b(model)
    return model.eval()


def fill_b(model: Any) -> None:
    """Give every LoRA B small random values."""
    for name, p in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(p, std=0.01)


def row(number: int, tokens: int, text_only: bool = False, trained: float = 0.5) -> Encoded:
    """Return one row of `tokens` tokens, the last share of its text trained, with its picture."""
    rng = np.random.default_rng(number)
    text = tokens if text_only else tokens - IMAGE_TOKENS
    ids = rng.integers(10, 31_000, text)
    if not text_only:
        ids = np.concatenate([ids[:30], np.full(IMAGE_TOKENS, IMAGE_ID), ids[30:]])
    labels = np.full(len(ids), -100)
    count = max(1, int(text * trained))
    labels[-count:] = ids[-count:]
    if text_only:
        return Encoded(number, ids, labels, ())
    picture = rng.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    return Encoded(number, ids, labels, ("x",), media=({"pixel_values": picture},))


def batch_of(rows: list[Encoded]) -> dict[str, Any]:
    """Collate rows and put the batch on the GPU's doorstep (pinned memory)."""
    batch = collate(rows, 0)
    batch["media"] = {n: v.pin_memory() for n, v in batch["media"].items()}
    return {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def realistic(count: int, seed: int = 0) -> list[Encoded]:
    """Return rows of 200–2048 tokens: 6 % text-only (200–2048), the rest an image and a log-normal length of text."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        text_only = rng.random() < 0.06
        text = float(np.exp(rng.normal(5.3, 0.7)))
        tokens = rng.integers(200, 2048) if text_only else min(2048, IMAGE_TOKENS + max(40, int(text)))
        rows.append(row(1000 * seed + i, int(tokens), text_only))
    return rows
