"""Ids and label masks: the spec's corner-case table as literal tokens, LLaVA's own algorithm as an oracle, round trips."""

import random

import numpy as np
import pytest
from vinnow.models.encoding import make_encoder
from vinnow.models.family.of_llava.pictures import count_image_tokens
from vinnow.pool.encode import IGNORE, EncodeError
from vinnow.pool.records import Record
from vinnow.pool.templates import TEMPLATES
from vinnow.store.errors import InputError

SYSTEM = TEMPLATES["v1"].system


def record(*values: str, image: str | list[str] | None = None) -> Record:
    turns = [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]
    return Record(7, "s", "t", (image,) if isinstance(image, str) else tuple(image or ()), turns)


def trained(processor, encoded) -> str:
    ids = encoded.labels[encoded.labels != IGNORE]
    return " ".join(processor.tokenizer.convert_ids_to_tokens(ids.tolist()))


def tokens(processor, encoded) -> str:
    """All tokens behind the system prompt (the shared words of every v1 row)."""
    skip = len(processor.tokenizer(SYSTEM, add_special_tokens=False)["input_ids"])
    skip += processor.tokenizer.bos_token_id is not None
    return " ".join(processor.tokenizer.convert_ids_to_tokens(encoded.input_ids[skip:].tolist()))


# spec LLaVA §2.3; the last three mask the whole sample in LLaVA
LLAMA_TABLE = [
    ("A cat.", "▁A ▁cat . </s>"),
    ("A cat. ", "▁A ▁cat . ▁ </s>"),
    (" A cat.", "▁ ▁A ▁cat . </s>"),
    ("\nA", "▁ <0x0A> A </s>"),
    ("3", "▁ 3 </s>"),
    ("🐱", "▁ <0xF0> <0x9F> <0x90> <0xB1> </s>"),
    ("é cat", "▁ <0xC3> <0xA9> ▁cat </s>"),
    (" ", "▁ ▁ </s>"),
    ("x ASSISTANT: y", "▁ x ▁ASSI S T A N T : ▁ y </s>"),
    ("a</s>b", "▁ a < / s > b </s>"),
    ("<unk>", "▁ < u n k > </s>"),
    ("<image>", "▁ < i m a g e > </s>"),
    ("<s> <0x0A>", "▁ < s > ▁ < 0 x 0 A > </s>"),
]


@pytest.mark.parametrize(("answer", "expected"), LLAMA_TABLE)
@pytest.mark.parametrize("image", [None, "a.png"])
def test_llama_answers(llama, answer, expected, image):
    mark = "" if image is None else "<image>\n"
    encoded = make_encoder(llama).encode(record(f"{mark}What is", answer, "What", "cat", image=image))
    assert trained(llama, encoded) == f"{expected} ▁cat </s>"


BYTE_TABLE = [
    ("A cat.", "ĠA Ġcat . </s>"),
    (" A cat. ", "Ġ ĠA Ġcat . Ġ </s>"),
    ("\nA", "Ġ Ċ A </s>"),
    ("3", "Ġ 3 </s>"),
    ("🐱", "Ġ ð Ł Ĳ ± </s>"),
    ("a</s>b", "Ġ a < / s > b </s>"),
    ("<image>", "Ġ < i m a g e > </s>"),
]


@pytest.mark.parametrize(("answer", "expected"), BYTE_TABLE)
def test_byte_level_answers(bytelevel, answer, expected):
    encoded = make_encoder(bytelevel).encode(record("What is", answer, "What", "cat"))
    assert trained(bytelevel, encoded) == f"{expected} Ġcat </s>"


def test_a_token_over_the_border_is_trained(make_processor):
    """Without a pre-tokenizer a merge may join the colon to the answer: what overlaps the answer carries loss."""
    joined = make_processor("normalizer", more="|: ▁")
    encoded = make_encoder(joined).encode(record("What", "3"))
    assert trained(joined, encoded) == ":▁ 3 </s>"


def test_the_whole_row_with_a_picture(llama):
    encoded = make_encoder(llama).encode(record("<image>\nWhat is", "A cat.", "What", "cat", image="a.png"))
    image = "<image> <image> <image> <image>"
    # a tokenizer of `legacy: false` puts no space behind `</s>`
    first = stretch(llama.tokenizer, "a", True) != stretch(llama.tokenizer, "a", False)
    again = "US" if first else "▁US"
    assert tokens(llama, encoded) == (
        f"▁ ▁US ER : ▁ {image} ▁ <0x0A> What ▁is ▁ASSI S T A N T : ▁A ▁cat . </s> "
        f"{again} ER : ▁What ▁ASSI S T A N T : ▁cat </s>"
    ).removeprefix("▁ ")
    assert encoded.input_ids[0] == llama.tokenizer.bos_token_id
    assert (encoded.input_ids == llama.tokenizer.bos_token_id).sum() == 1
    assert encoded.input_ids.dtype == encoded.labels.dtype == np.int64
    assert (encoded.labels[encoded.input_ids == llama.image_token_id] == IGNORE).all()


def test_no_beginning_where_the_tokenizer_has_none(bytelevel):
    encoded = make_encoder(bytelevel).encode(record("<image>\nWhat is", "cat", image="a.png"))
    first = bytelevel.tokenizer(SYSTEM, add_special_tokens=False)["input_ids"][0]
    assert encoded.input_ids[0] == first


def test_an_empty_answer_is_not_trained_but_the_next_one_is(llama):
    encoded = make_encoder(llama).encode(record("What", "", "What is", "A cat."))
    assert trained(llama, encoded) == "▁A ▁cat . </s>"
    # as in LLaVA, its round ends without a separator
    assert "A N T : US ER : ▁What ▁is" in tokens(llama, encoded)


def test_an_empty_question(llama):
    encoded = make_encoder(llama).encode(record("", "cat"))
    assert tokens(llama, encoded) == "▁US ER : A S S I S T A N T : ▁cat </s>".replace("A S S I S", "ASSI S")


def test_all_answers_empty_is_returned_untrained(llama):
    assert (make_encoder(llama).encode(record("What", "")).labels == IGNORE).all()


def test_a_literal_mark_in_a_text_only_row_stays_text(llama):
    encoded = make_encoder(llama).encode(record("<image> What", "cat"))
    assert llama.image_token_id not in encoded.input_ids
    assert "< i m a g e >" in tokens(llama, encoded)


def test_plain_is_image_caption_newline(llama):
    encoded = make_encoder(llama, "plain").encode(record("<image>\nDescribe.", "A cat.", image="a.png"))
    all_tokens = llama.tokenizer.convert_ids_to_tokens(encoded.input_ids.tolist())
    assert " ".join(all_tokens) == "<s> <image> <image> <image> <image> ▁A ▁cat . <0x0A>"
    assert trained(llama, encoded) == "▁A ▁cat . <0x0A>"
    with pytest.raises(EncodeError, match="4 turns"):
        make_encoder(llama, "plain").encode(record("q", "a", "q", "a"))


def llava_masks(tokenizer, prompt: str) -> tuple[list[int], list[int]]:
    """LLaVA's `preprocess_v1`, for text: rounds by `</s>`, prefixes tokenised again (spec §2.3)."""

    def length(text: str) -> int:
        return 1 + len(tokenizer(text, add_special_tokens=False)["input_ids"])

    ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    labels, position = list(ids), 1
    labels[0] = IGNORE
    for part in prompt.split("</s>"):
        halves = part.split(" ASSISTANT: ")
        if len(halves) != 2:
            break
        asked = length(halves[0] + " ASSISTANT: ") - 2
        labels[position : position + asked] = [IGNORE] * asked
        position += length(part)
    assert position == len(ids), "LLaVA would mask this row"
    return ids, labels


@pytest.mark.parametrize("flavour", ["metaspace-always", "normalizer"])
def test_equals_llava_where_llava_does_not_give_up(make_processor, flavour):
    """`metaspace-first` is left out: over a whole prompt it loses the `▁` behind `</s>`, official LLaVA has it."""
    llama = make_processor(flavour)
    rng = random.Random(0)
    words = ["cat", "What", "is", "A", "3", "🐱", "\n", "it's", "US", "", "über", "."]
    for _ in range(150):
        texts = [" ".join(rng.choices(words, k=rng.randint(1, 6))) or "x" for _ in range(2 * rng.randint(1, 4))]
        rounds = [f"USER: {q} ASSISTANT: {a}</s>" for q, a in zip(texts[::2], texts[1::2])]
        ids, labels = llava_masks(llama.tokenizer, f"{SYSTEM} {''.join(rounds)}")
        encoded = make_encoder(llama).encode(record(*texts))
        assert encoded.input_ids.tolist() == ids
        assert encoded.labels.tolist() == labels


def test_trained_tokens_spell_the_answers(llama, bytelevel):
    """On any text: what is trained decodes to exactly the answers, and all of them are trained."""
    rng = random.Random(1)
    pieces = ["cat", " ", "\n", "</s>", " ASSISTANT: ", "<image>", "USER:", "🐱", "é", "3", "<unk>", "▁", "  "]
    for processor in (llama, bytelevel):
        tokenizer = processor.tokenizer
        for _ in range(100):
            texts = ["".join(rng.choices(pieces[: -2 if processor is llama else None], k=rng.randint(1, 7)))] * 4
            encoded = make_encoder(processor).encode(record(*texts))
            eos = np.flatnonzero(encoded.labels == tokenizer.eos_token_id)
            assert len(eos) == 2
            start = 0
            for end in eos:
                ids = [i for i in encoded.labels[start:end].tolist() if i != IGNORE]
                # the decoder of a LLaMA strips the first space itself
                spoken = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
                assert spoken.removeprefix(" " if processor is bytelevel else "") == texts[1]
                start = end + 1


def test_truncation_counts_image_tokens_and_never_cuts_the_image(llama):
    row = record("<image>\nWhat is", "A cat.", image="a.png")
    whole = make_encoder(llama).encode(row)
    last = int(np.flatnonzero(whole.input_ids == llama.image_token_id)[-1])
    for length in (last + 1, last + 3, len(whole.input_ids) - 1, len(whole.input_ids), 2048):
        cut = make_encoder(llama, max_len=length).encode(row)
        assert np.array_equal(cut.input_ids, whole.input_ids[:length])
        assert np.array_equal(cut.labels, whole.labels[:length])
    assert (make_encoder(llama, max_len=last + 1).encode(row).labels == IGNORE).all()
    for length in (last, last - 2, 1):
        with pytest.raises(EncodeError, match=f"record 7.*max_len is {length}") as error:
            make_encoder(llama, max_len=length).encode(row)
        assert error.value.reason == "not_encodable"


def test_prompt_stops_where_the_answer_begins(llama):
    row = record("<image>\nWhat is", "A cat.", "What", "cat", image="a.png")
    whole, asked = make_encoder(llama).encode(row), make_encoder(llama).prompt(row)
    first = int(np.flatnonzero(whole.labels != IGNORE)[0])
    assert np.array_equal(asked.input_ids, whole.input_ids[:first])
    assert (asked.labels == IGNORE).all()
    with pytest.raises(EncodeError, match="the prompt has"):
        make_encoder(llama, max_len=first - 1).prompt(row)
    plain = make_encoder(llama, "plain").prompt(row)
    assert plain.input_ids.tolist() == [llama.tokenizer.bos_token_id] + [llama.image_token_id] * 4


def stretch(tokenizer, text: str, behind: bool) -> list[int]:
    """Read a stretch as LLaVA's slow tokenizer does, whether it stands behind a special token or not."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    first = tokenizer("</s>a", add_special_tokens=False)["input_ids"][1:] != plain
    if first and behind:
        return tokenizer(f"</s>{text}", add_special_tokens=False)["input_ids"][1:]
    # Metaspace leaves out the space in front where one stands already; SentencePiece puts another
    merged = tokenizer(" a", add_special_tokens=False)["input_ids"] == plain
    lead = " " if merged and text.startswith(" ") and not behind else ""
    return tokenizer(lead + text, add_special_tokens=False)["input_ids"]


def naive(processor, values: list[str]) -> tuple[list[int], list[int]]:
    """A v1 row by LLaVA's own way: split the prompt at marks and `</s>`, tokenise each piece, all in one list."""
    tokenizer, ids, labels = processor.tokenizer, [processor.tokenizer.bos_token_id], [IGNORE]
    text, behind = f"{SYSTEM} ", False
    for i, value in enumerate(values):
        if i % 2 == 0:
            *before, last = f"USER: {value} ASSISTANT:".split("<image>")
            for piece in before:
                piece_ids = stretch(tokenizer, text + piece, behind) if text + piece else []
                ids += piece_ids + [processor.image_token_id] * 4
                labels += [IGNORE] * (len(piece_ids) + 4)
                text, behind = "", False
            text += last
        else:
            asked = len(stretch(tokenizer, text, behind))
            piece_ids = [*stretch(tokenizer, f"{text} {value}", behind), tokenizer.eos_token_id]
            ids += piece_ids
            labels += [IGNORE] * asked + piece_ids[asked:]
            text, behind = "", True
    return ids, labels


@pytest.mark.parametrize(
    "values",
    [
        ["<image>\n<image>\nWhat", "A cat."],
        ["What <image> is <image>", "cat", "A", "cat"],
        ["What", "cat", "<image> is", "A cat.", "US <image>", "cat"],
        ["<image><image>", "cat"],
    ],
)
def test_several_pictures_equal_a_naive_encoding(llama, values):
    row = record(*values, image=["a.png", "b.png"])
    encoded = make_encoder(llama).encode(row)
    ids, labels = naive(llama, values)
    assert encoded.input_ids.tolist() == ids
    assert encoded.labels.tolist() == labels
    assert encoded.images == ("a.png", "b.png")
    last = int(np.flatnonzero(encoded.input_ids == llama.image_token_id)[-1])
    assert len(make_encoder(llama, max_len=last + 1).encode(row).input_ids) == last + 1
    for length in (last, last - 3, last - 4, 5):  # within the second picture, and before all of it
        with pytest.raises(EncodeError, match=f"last image ends at token {last + 1}"):
            make_encoder(llama, max_len=length).encode(row)


def test_a_prompt_shows_the_pictures_of_its_question(llama):
    both = make_encoder(llama).prompt(record("<image> or <image>", "cat", "What", "cat", image=["a.png", "b.png"]))
    one = make_encoder(llama).prompt(record("<image> is", "cat", "<image> What", "cat", image=["a.png", "b.png"]))
    assert (both.images, one.images) == (("a.png", "b.png"), ("a.png",))
    assert [(e.input_ids == llama.image_token_id).sum() for e in (both, one)] == [8, 4]


def test_plain_takes_every_picture(llama):
    encoded = make_encoder(llama, "plain").encode(
        record("<image>\n<image>\nDescribe.", "cat", image=["a.png", "b.png"])
    )
    assert (encoded.input_ids == llama.image_token_id).sum() == 8


@pytest.mark.parametrize("values", [("What", "a"), ("<image>", "a", "<image>", "b")])
def test_a_hand_made_record_needs_one_mark_a_picture(llama, values):
    with pytest.raises(EncodeError, match="exactly one <image>"):
        make_encoder(llama).encode(record(*values, image="a.png"))


@pytest.mark.parametrize("strategy", ["default", "full"])
@pytest.mark.parametrize("size", [28, 56])
def test_counts_image_tokens_as_the_processor(make_processor, size, strategy):
    from PIL import Image

    processor = make_processor("metaspace-always", size)
    processor.vision_feature_select_strategy = strategy
    done = processor(images=Image.new("RGB", (50, 40)), text="<image>")
    assert count_image_tokens(processor) == done["input_ids"][0].count(processor.image_token_id)


def test_a_processor_that_counts_no_class_token_is_refused(make_processor):
    processor = make_processor("metaspace-always")
    processor.num_additional_image_tokens = 0
    with pytest.raises(InputError, match="num_additional_image_tokens"):
        make_encoder(processor)


def test_tokenizers_that_would_err_in_silence_are_refused(make_processor, llama):
    loose = make_processor("bytes", special=False)
    with pytest.raises(InputError, match="literal '<image>'"):
        make_encoder(loose)
    processor = make_processor("bytes")
    processor.image_token = "<picture>"
    with pytest.raises(InputError, match="does not know the image token"):
        make_encoder(processor)
    with pytest.raises(InputError, match="did you mean 'plain'"):
        make_encoder(llama, "plian")
    with pytest.raises(InputError, match="unknown image mode"):
        make_encoder(llama, image_mode="anyres")  # pyright: ignore


def test_the_processor_still_finds_its_marks_afterwards(llama):
    """`split_special_tokens` is a state of the Rust tokenizer: encoding must not leave it switched."""
    make_encoder(llama).encode(record("What", "cat"))
    assert llama.tokenizer("a <image>", add_special_tokens=False)["input_ids"][-1] == llama.image_token_id


def test_recipe_changes_with_what_changes_the_numbers(llama):
    encoders = [
        make_encoder(llama),
        make_encoder(llama, "plain"),
        make_encoder(llama, max_len=9),
        make_encoder(llama, image_mode="square"),
    ]
    assert len({str(e.recipe()) for e in encoders}) == 4
    assert make_encoder(llama).recipe() == make_encoder(llama).recipe()


def test_threads_share_one_encoder(llama):
    """The feature actor's loader encodes in threads; the Rust tokenizer is one shared object."""
    from concurrent.futures import ThreadPoolExecutor

    rows = [record(f"What {i}", "cat " * (i % 40 + 1), "is", "A cat.") for i in range(200)]
    encoder = make_encoder(llama)
    with ThreadPoolExecutor(8) as threads:
        encoded_rows = list(threads.map(encoder.encode, rows))
    for row, encoded in zip(rows, encoded_rows, strict=True):
        alone = encoder.encode(row)
        assert np.array_equal(encoded.input_ids, alone.input_ids)
        assert np.array_equal(encoded.labels, alone.labels)
