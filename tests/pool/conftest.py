"""Processors for the encoder's tests: LLaMA-like tokenizers whose merges are written by hand, and a byte-level BPE.

Hand-written merges make the expected tokens readable: `▁US ER :` as in LLaMA's own vocabulary.
"""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

LLAMAS = ("metaspace-always", "metaspace-first", "normalizer")
SPECIALS = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
MERGES = "U S|E R|▁ US|A S|S I|AS SI|AS S|▁ A|▁ AS|▁ ASSI|c a|ca t|▁ cat|W h|a t|Wh at|▁ What|i s|▁ is"
CHARS = [chr(c) for c in range(33, 127)] + ["▁"]


def llama_core(flavour: str, more: str = "") -> Tokenizer:
    """A LLaMA-like BPE: `metaspace-always` and `-first`, the `normalizer` of Llama-2's own tokenizer.json, or `gemma`'s.

    Gemma's puts no space in front. `more`: further merges, as `: ▁`.
    """
    merges = [tuple(m.split(" ")) for m in (MERGES + more).split("|")]
    pieces = [*SPECIALS, *(f"<0x{b:02X}>" for b in range(256)), *CHARS, *("".join(m) for m in merges)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if flavour == "gemma":
        core.normalizer = normalizers.Replace(" ", "▁")
    elif flavour == "normalizer":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=flavour.split("-")[1])
    strip = [] if flavour == "gemma" else [decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return core


def byte_core(trim: bool = False) -> Tokenizer:
    """A byte-level BPE as of GPT-2 and Qwen, trained on a few words; `trim`: offsets without spaces (RoBERTa)."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = ["USER: What is it? ASSISTANT: A cat."] * 9
    core.train_from_iterator(words, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    core.add_special_tokens(["</s>", "<pad>"])
    return core


def build_processor(
    flavour: str, size: int = 28, special: bool = True, more: str = "", tokens: tuple[str, ...] = ()
) -> LlavaProcessor:
    """Wrap a tokenizer and a PIL image processor of `size` pixels: patches of 14, so (size / 14)² image tokens.

    `flavour`: one of `LLAMAS`, `gemma`, `bytes` or `bytes-trimmed`. `special`: whether `<image>` and the further `tokens`
    are special ones.
    """
    by_bytes = flavour.startswith("bytes")
    core = byte_core("trimmed" in flavour) if by_bytes else llama_core(flavour, more)
    names = {} if by_bytes else {"bos_token": "<s>", "unk_token": "<unk>"}
    core.add_tokens([AddedToken(t, special=special, normalized=False) for t in ("<image>", *tokens)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="</s>", pad_token="<pad>", padding_side="right", **names
    )
    pictures = LlavaImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
    )
    return LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


@pytest.fixture(scope="session")
def make_processor():
    """The builder itself, for processors of another kind."""
    return build_processor


@pytest.fixture(scope="session", params=LLAMAS)
def llama(request) -> LlavaProcessor:
    """LLaMA-like, with a beginning token."""
    return build_processor(request.param)


@pytest.fixture(scope="session", params=["bytes", "bytes-trimmed"])
def bytelevel(request) -> LlavaProcessor:
    """Byte-level, without a beginning token."""
    return build_processor(request.param)
