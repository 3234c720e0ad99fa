"""Small models of other parts for the tests: configs, models in memory, and the two folders that `build` takes."""

import torch
from batches import make_batch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
)
from vinnow.models.family.of_llava.llms import LLMS
from vinnow.models.family.of_llava.model import class_of
from vinnow.models.family.of_llava.tiny import text_config, tiny_model_config, vision_config
from vinnow.models.specs import TinyModelConfig
from vinnow.pool.templates import TEMPLATES

TEXTS = ["USER: what color is the square? ASSISTANT: it is red", "<start_of_turn>user what is this"] * 20
SMALL = {"queries": 4, "width": 32, "layers": 2, "heads": 4}
CONNECTORS = {
    "mlp2x_gelu": {},
    "linear": {},
    "mlp3x_gelu": {},
    "identity": {},
    "resampler": SMALL,
    "qformer": SMALL,
}
SIZES = {"image": 32, "patch": 16, "vision_hidden": 32, "hidden": 32, "heads": 4, "ffn": 48, "max_len": 256}


class Words:
    """Stands for a tokenizer of 400 words."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 3

    def __len__(self):
        return 400

    def convert_tokens_to_ids(self, _):
        return 4


def tiny_config(connector="mlp2x_gelu", **changes):
    """A TinyModelConfig of small sizes."""
    return TinyModelConfig.parse(SIZES | {"connector": {"kind": connector} | CONNECTORS[connector]} | changes)


def llava(layers=32, width=4096, heads=32, ffn=11008, kv_heads=None, vision_layers=24, text=LlamaConfig, tied=False):
    """The config of LLaVA-1.5-7B, or of other sizes."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=vision_layers, num_attention_heads=16,
        image_size=336, patch_size=14,
    )  # fmt: skip
    text = text(
        vocab_size=32000, hidden_size=width, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads or heads, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=31999,
        vision_feature_layer=-2,
        tie_word_embeddings=tied,
    )


def in_memory(config, dtype=torch.float32):
    """The model of a TinyModelConfig, unsaved, in eval mode."""
    family_config = tiny_model_config(config, Words())
    torch.manual_seed(0)
    return class_of(family_config)(family_config).to(dtype).eval()


def batch_for(model, config, rows=(0, 1, 2, 3, 4)):
    """`batches.make_batch` with as many image tokens per picture as the connector gives."""
    patches = (config.image // config.patch) ** 2
    batch = make_batch(model, rows, tokens=config.connector.tokens(patches))
    batch["media"] = {n: v.to(model.dtype) for n, v in batch["media"].items()}
    return batch


def make_tokenizer(llm):
    """A byte-level tokenizer with the special tokens of an LLM's base template, without `<image>` and pad token."""
    marks = TEMPLATES[LLMS[llm].templates[-1]].tokens
    specials = list(dict.fromkeys(["<s>", "</s>", *marks]))
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=330, special_tokens=specials, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def write_llm(folder, llm="llama", **changes):
    """A language model's folder, as Hugging Face saves it."""
    tokenizer = make_tokenizer(llm)
    config = text_config(tiny_config(llm=llm, **changes), tokenizer)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_tower(folder, tower="clip", **changes):
    """A vision tower's folder."""
    torch.manual_seed(2)
    AutoModel.from_config(vision_config(tiny_config(tower=tower, **changes))).save_pretrained(folder)
    return str(folder)
