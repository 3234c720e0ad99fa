"""LLaVA's own ids and labels for odd conversations (`data/labels.json`); what differs is what docs/differences.md lists."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlavaImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast
from vinnow.models.encoding import make_encoder
from vinnow.pool.checks import RefusedError, check_record
from vinnow.pool.records import Record

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "labels.json").read_text())["cases"]
PIECES = json.loads((DATA / "pieces.json").read_text())
IMAGE, SHOWN = -200, 400
TEMPLATES = ("v1", "plain", "llava_llama_2", "mistral_instruct")
CHATS = {"v1", "llava_llama_2", "mistral_instruct"}
# case → templates in which it differs; the reasons are in docs/differences.md
DIFFERENT = {
    "ans_bos": CHATS,
    "ans_sep2": CHATS,
    "q_sep2": CHATS,
    "empty_q_mid": CHATS,
    "image_absent_in_text": CHATS,
    "image_in_answer": {*CHATS, "plain"},
    "img_lit_text_only": {"plain"},
    "inst_in_question": {"llava_llama_2", "mistral_instruct"},
    "odd_turns": CHATS,
}


def processor(legacy: bool) -> LlavaProcessor:
    """LLaMA's fast tokenizer as `transformers` converts it: `legacy` prepends to every stretch, else to the first."""
    pieces = {p: i for i, p in enumerate(PIECES["pieces"])}
    merges = [tuple(m.split(" ")) for m in PIECES["merges"]]
    tokenizer = Tokenizer(BPE(pieces, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>", "<image>")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "additional_special_tokens": ["<image>"]}
    images = LlavaImageProcessorPil(crop_size={"height": 28, "width": 28}, size={"shortest_edge": 28})
    return LlavaProcessor(
        images,
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )


def read(encoder, raw: dict) -> tuple[list[int], list[int]] | None:
    try:
        checked = check_record(raw)
    except RefusedError:
        return None
    encoded = encoder.encode(Record(0, "s", "t", checked.images, checked.conversations, checked.extra))
    ids = [*PIECES["ids"], IMAGE]
    return [ids[i] for i in encoded.input_ids], [i if i < 0 else ids[i] for i in encoded.labels]


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_differs_is_listed(template, legacy):
    encoder, different = make_encoder(processor(legacy), template), set()
    key = f"{template}, legacy={legacy}"
    compared = {name: case["official"][key] for name, case in CASES.items() if key in case["official"]}
    for name, official in compared.items():
        ours = read(encoder, CASES[name]["record"])
        same = ours is not None and len(ours[0]) == official["all"]
        if not same or (ours[0][:SHOWN], ours[1][:SHOWN]) != (official["ids"], official["labels"]):
            different.add(name)
    assert different == {name for name, where in DIFFERENT.items() if template in where}
    assert len(compared) > 5


def test_the_differences_are_documented():
    text = (Path(__file__).parents[2] / "docs/differences.md").read_text()
    assert all(f"`{name}`" in text for name in DIFFERENT)
