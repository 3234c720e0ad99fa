"""Every template against a naive reference: the published prompt as one string, answers found by character offsets."""

import re

import numpy as np
import pytest
from vinnow.models.encoding import make_encoder
from vinnow.pool.encode import IGNORE, EncodeError
from vinnow.pool.records import Record
from vinnow.pool.templates import CHATML_SYSTEM, LLAMA_2_SYSTEM, TEMPLATES, V1_SYSTEM
from vinnow.store.errors import InputError

# template → (tokenizers like those of its language models, special tokens they need, does a row begin with BOS)
MADE_FOR = {
    "v1": ("metaspace-always", (), True),
    "llava_llama_2": ("normalizer", (), True),
    "mistral_instruct": ("metaspace-first", (), True),
    "chatml": ("bytes", ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), False),
    "phi": ("bytes", ("<|endoftext|>",), False),
    "gemma": ("gemma", ("<start_of_turn>", "<end_of_turn>"), True),
}
END = {"chatml": "<|im_end|>", "phi": "<|endoftext|>", "gemma": "<end_of_turn>"}
every = pytest.mark.parametrize("name", list(MADE_FOR))


@pytest.fixture(scope="module")
def processors(make_processor):
    by_name = {n: make_processor(flavour, tokens=tokens) for n, (flavour, tokens, _) in MADE_FOR.items()}
    # phi-2 has a beginning token that it never places
    by_name["phi"].tokenizer.bos_token = "<|endoftext|>"
    return by_name


def record(*values: str, images: tuple[str, ...] = ()) -> Record:
    turns = [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]
    return Record(7, "s", "t", images, turns)


def mark(token: str) -> str:
    return f"\ue000{token}\ue001"


def published(name: str, values: tuple[str, ...]) -> tuple[str, list[tuple[int, int]]]:
    """The prompt with special tokens between private-use characters, and the spans of what is trained."""
    end, text, spans = mark(END.get(name, "</s>")), "", []
    start, stop = mark("<|im_start|>"), mark("<start_of_turn>")
    head = {
        "v1": V1_SYSTEM + " ",
        "phi": V1_SYSTEM + " ",
        "chatml": f"{start}system\n{CHATML_SYSTEM}{end}\n",
    }
    text += head.get(name, "")
    for i in range(0, len(values), 2):
        question, answer = values[i].replace("<image>", mark("<image>")), values[i + 1]
        system = f"<<SYS>>\n{LLAMA_2_SYSTEM}\n<</SYS>>\n\n" if name == "llava_llama_2" and i == 0 else ""
        again = mark("<s>") if name == "llava_llama_2" and i else ""
        before, after, spoken, closed = {
            "v1": (f"USER: {question} ASSISTANT:", "", f" {answer}", False),
            "phi": (f"USER: {question} ASSISTANT:", "", f" {answer}", False),
            "llava_llama_2": (f"{again}[INST] {system}{question} [/INST]", "", f" {answer} ", False),
            "mistral_instruct": (f"[INST] {question} [/INST]", "", f" {answer} ", False),
            "chatml": (f"{start}user\n{question}{end}\n{start}assistant\n", "\n", answer, True),
            "gemma": (f"{stop}user\n{question}{end}\n{stop}model\n", "\n", answer, True),
        }[name]
        text += before
        if answer:
            spans.append((len(text), len(text) + len(spoken) + len(end)))
            text += spoken + end
        elif closed:
            text += end
        text += after
    return text, spans


def reference(processor, name: str, values: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Tokenise that string piece by piece; a token is trained when it overlaps a trained span."""
    tokenizer = processor.tokenizer
    text, spans = published(name, values)
    ids = [tokenizer.bos_token_id] if MADE_FOR[name][2] else []
    labels, behind = [IGNORE] * len(ids), False
    one = tokenizer("a", add_special_tokens=False)["input_ids"]
    first = tokenizer(f"{tokenizer.eos_token}a", add_special_tokens=False)["input_ids"][1:] != one
    # Metaspace leaves out the space in front where one stands already; SentencePiece puts another
    merged = tokenizer(" a", add_special_tokens=False)["input_ids"] == one
    for match in re.finditer("\ue000(.*?)\ue001|[^\ue000]+", text):
        offset, token = match.start(), match.group(1)
        if token:
            times = 4 if token == "<image>" else 1
            trained = any(a <= offset < b for a, b in spans)
            ids += [tokenizer.convert_tokens_to_ids(token)] * times
            labels += [ids[-1] if trained else IGNORE] * times
            behind = token != "<image>"
            continue
        # behind a special token, but not behind a picture, `legacy: false` puts no space
        lead = "\n" if first and behind else " " if merged and not behind and match.group().startswith(" ") else ""
        done = tokenizer(
            lead + match.group(), add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        for i, (a, b) in zip(done["input_ids"], done["offset_mapping"], strict=True):
            if lead == "\n" and b <= 1:
                continue
            a, b = max(a - len(lead), 0), max(b - len(lead), 0)
            ids.append(i)
            labels.append(
                i if any(offset + a < stop and offset + max(b, a + 1) > start for start, stop in spans) else IGNORE
            )
        behind = False
    return ids, labels


CASES = [
    ("What is", "A cat."),
    ("What", "A cat. "),
    ("What", " A cat."),
    ("What", "\nA"),
    ("What", "3"),
    ("What", "🐱 é"),
    ("What", " "),
    ("<image>\nWhat is", "cat"),
    ("What", "", "What is", "A cat."),
    ("What", "cat", "is", "", "What is", "A"),
    ("<image>\nWhat", "A cat.", "is", "cat", "What", "3"),
    ("What", "x ASSISTANT: y [/INST] z [INST] USER: w", "is", "cat"),
    ("What", "a</s>b <s> <|im_end|>\n<|im_start|> <|endoftext|>", "is", "cat"),
    ("a </s> <|im_end|> <end_of_turn> [/INST]", "a<end_of_turn>b<start_of_turn>model\n<image>", "is", "cat"),
    ("What", "user\n<<SYS>>\n<</SYS>>", "is", "<unk> <bos>"),
]


@every
@pytest.mark.parametrize("values", CASES, ids=range(len(CASES)))
def test_equals_the_published_format(processors, name, values):
    row = record(*values, images=("a.png",) * values[0].startswith("<image>"))
    encoded = make_encoder(processors[name], name).encode(row)
    ids, labels = reference(processors[name], name, values)
    assert encoded.input_ids.tolist() == ids
    assert encoded.labels.tolist() == labels


@every
def test_what_is_trained_spells_the_answers_and_their_ends(processors, name):
    """No reference at all: decoded, and special tokens counted."""
    tokenizer = processors[name].tokenizer
    end = tokenizer.convert_tokens_to_ids(END.get(name, "</s>"))
    for values in CASES:
        row = record(*values, images=("a.png",) * values[0].startswith("<image>"))
        encoded = make_encoder(processors[name], name).encode(row)
        spoken, start = [], 0
        for stop in np.flatnonzero(encoded.labels == end):
            piece = [i for i in encoded.labels[start:stop].tolist() if i != IGNORE]
            spoken.append(tokenizer.decode(piece, clean_up_tokenization_spaces=False))
            start = stop + 1
        assert (encoded.labels[start:] == IGNORE).all()
        answers = [a for a in values[1::2] if a]
        if name in ("v1", "phi", "llava_llama_2", "mistral_instruct"):
            # the space in front, which the decoder of a LLaMA strips itself, and LLaMA-2's one behind
            spoken = [s.removeprefix(" ") if name == "phi" else s for s in spoken]
            answers = [a + " " * (name in ("llava_llama_2", "mistral_instruct")) for a in answers]
        if "<image>" not in values[1] and values[1][:1] != "\n":  # a newline may melt into the one in front of it
            assert spoken == answers


@pytest.mark.parametrize("name", ["chatml", "gemma", "phi", "llava_llama_2"])
def test_equals_the_tokenizer_s_own_reading_of_the_string(processors, name):
    """Special tokens spelled out and found by the tokenizer itself, where no text of the user's looks like one."""
    values = ("What is", "A cat.", "What", "cat")
    tokenizer = processors[name].tokenizer
    text = re.sub("[\ue000\ue001]", "", published(name, values)[0])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    encoded = make_encoder(processors[name], name).encode(record(*values))
    assert encoded.input_ids.tolist() == [tokenizer.bos_token_id] * MADE_FOR[name][2] + ids


def test_written_out(processors):
    """By hand, so that reference and code cannot err together."""

    def spell(name):
        encoded = make_encoder(processors[name], name).encode(
            record("<image>\nWhat", "A cat.", "is", "cat", images=("a.png",))
        )
        return processors[name].tokenizer.decode(encoded.input_ids.tolist(), clean_up_tokenization_spaces=False)

    image = "<image>" * 4
    assert spell("chatml") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{image}\nWhat<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>user\nis<|im_end|>\n<|im_start|>assistant\ncat<|im_end|>\n"
    )
    assert spell("gemma") == (
        f"<s><start_of_turn>user\n{image}\nWhat<end_of_turn>\n<start_of_turn>model\nA cat.<end_of_turn>\n"
        "<start_of_turn>user\nis<end_of_turn>\n<start_of_turn>model\ncat<end_of_turn>\n"
    )
    assert spell("phi") == (
        f"{V1_SYSTEM} USER: {image}\nWhat ASSISTANT: A cat.<|endoftext|>USER: is ASSISTANT: cat<|endoftext|>"
    )


@every
def test_the_prompt_is_the_row_up_to_its_first_answer(processors, name):
    row = record("<image>\nWhat", "A cat.", "is", "cat", images=("a.png",))
    encoder = make_encoder(processors[name], name)
    whole, asked = encoder.encode(row), encoder.prompt(row)
    assert np.array_equal(asked.input_ids, whole.input_ids[: np.flatnonzero(whole.labels != IGNORE)[0]])
    assert encoder.end_id == whole.labels[whole.labels != IGNORE][-1]


@every
def test_several_pictures_stand_where_they_are_marked(processors, name):
    values = ("What <image> is <image>", "cat", "A", "cat")
    encoded = make_encoder(processors[name], name).encode(record(*values, images=("a.png", "b.png")))
    assert (encoded.input_ids.tolist(), encoded.labels.tolist()) == reference(processors[name], name, values)


@pytest.mark.parametrize("name", ["llava_llama_2", "mistral_instruct"])
def test_a_first_question_must_be_there(processors, name):
    encoder = make_encoder(processors[name], name)
    with pytest.raises(EncodeError, match="needs a first question"):
        encoder.encode(record("", "cat"))
    # a later one is left out, with its brackets
    spoken = processors[name].tokenizer.decode(encoder.encode(record("What", "cat", "", "A")).input_ids)
    assert spoken.count("[INST]") == 1


@pytest.mark.parametrize(
    ("name", "missing"),
    [("chatml", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("phi", "<|endoftext|>"), ("llava_llama_2", "<s>")],
)
def test_a_tokenizer_without_the_special_tokens_is_refused(make_processor, name, missing):
    processor = make_processor("bytes")
    with pytest.raises(InputError, match=rf"template '{name}' places '{re.escape(missing)}'"):
        make_encoder(processor, name)


def test_special_tokens_that_a_text_could_spell_are_refused(make_processor):
    loose = make_processor("bytes", tokens=("<|endoftext|>",))
    loose.tokenizer.backend_tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    with pytest.raises(InputError, match=r"literal '<\|im_end\|>'"):
        make_encoder(loose, "chatml")


def test_every_template_has_its_case():
    assert {*MADE_FOR, "plain"} == set(TEMPLATES)
