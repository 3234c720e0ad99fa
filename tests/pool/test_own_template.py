"""Template `own`: ids and masks are Hugging Face's own of the same messages, and users' words stay words."""

import numpy as np
import pytest
from pool.chat_templates import FORMS, QWEN2_5_VL, THINKING, OneToken
from vinnow.pool.encode import IGNORE, EncodeError, Encoder
from vinnow.pool.own_template import TOLD_OF
from vinnow.pool.records import Record
from vinnow.store.errors import InputError

each = pytest.mark.parametrize("name", FORMS)
# those that take a system prompt
TOLD = [n for n in FORMS if "mistral" not in n and n != "strings"]


def record(*values: str, pictures: int = 0, system: str = "") -> Record:
    turns = [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]
    images = tuple(f"{i}.png" for i in range(pictures))
    return Record(7, "s", "t", images, turns, {"system": system} if system else {})


RECORDS = [
    record("<image>\nWhat is it?", "A cat.", pictures=1),
    record("What is 3?", "3 it is"),
    record("<image><image>\nWhich cat?", "a cat", "and <image>?", "is A", pictures=3),
    record("What", "cat cat", "What is\nit", "A\n\ncat", "is", "yes"),
    record("What is über 🐱?", "🐱 it's"),
]


def encoder(name: str, template: str | None = None, **told) -> Encoder:
    form = FORMS[name]
    return Encoder(OneToken(form.tokenizer(template), form.mark, **told), "own")


def messages(row: Record, name: str) -> list[dict]:
    """A record as Hugging Face's processors take it."""
    said = [{"role": "system", "content": [{"type": "text", "text": row.system}]}] if row.system else []
    for turn in row.conversations:
        first, *rest = turn["value"].split("<image>") if row.images else [turn["value"]]
        parts = [{"type": "text", "text": first}]
        for piece in rest:
            parts += [{"type": "image"}, {"type": "text", "text": piece}]
        parts = [p for p in parts if p.get("text") != "" or len(parts) == 1]
        said.append({"role": "user" if turn["from"] == "human" else "assistant", "content": parts})
    if name == "strings":
        mark = FORMS[name].mark
        for message in said:
            message["content"] = "".join(p.get("text", mark) for p in message["content"])
    return said


def theirs(tokenizer, said: list[dict]) -> tuple[list[int], list[int]]:
    """Ids and mask by Hugging Face: of `{% generation %}`, or of what each answer adds to its prompt."""
    text = tokenizer.apply_chat_template(said, tokenize=False)
    bos = tokenizer.bos_token
    done = tokenizer(
        text,
        add_special_tokens=not (bos and text.startswith(bos)),
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    ids, offsets = done["input_ids"], done["offset_mapping"]
    if "generation %}" in tokenizer.chat_template.replace("add_generation", ""):
        both = tokenizer.apply_chat_template(said, return_dict=True, return_assistant_tokens_mask=True)
        added = len(ids) - len(both["input_ids"])
        assert both["input_ids"] == ids[added:]
        mask = [0] * added + both["assistant_masks"]
        for n in range(1, len(ids)):  # of two tokens of one character (a space twice) Hugging Face marks the first
            mask[n] |= mask[n - 1] and offsets[n] == offsets[n - 1]
        return ids, [int(m) for m in mask]
    mask = [0] * len(ids)
    ends = [t for t in tokenizer.all_special_tokens if t != bos] + ["<|im_end|>", "<end_of_turn>", "<end_of_utterance>"]
    for i, message in enumerate(said):
        if message["role"] != "assistant" or not _words(message["content"]):
            continue
        begin = len(tokenizer.apply_chat_template(said[:i], tokenize=False, add_generation_prompt=True))
        turn = tokenizer.apply_chat_template(said[: i + 1], tokenize=False)
        end = max(turn.rfind(e, begin) + len(e) for e in ends if turn.rfind(e, begin) >= 0)
        for n, (a, b) in enumerate(offsets):
            mask[n] |= a < end and b > begin and a < b
    return ids, [int(m) for m in mask]


def _words(content) -> str:
    return (content if isinstance(content, str) else "".join(p.get("text", "") for p in content)).strip()


def compare(mine: Encoder, row: Record, name: str) -> None:
    encoded = mine.encode(row)
    ids, mask = theirs(mine.tokenizer, messages(row, name))
    assert encoded.input_ids.tolist() == ids
    assert (encoded.labels != IGNORE).astype(int).tolist() == mask
    assert sum(mask) > 1
    assert np.array_equal(encoded.labels[encoded.labels != IGNORE], encoded.input_ids[encoded.labels != IGNORE])


@each
def test_ids_and_masks_are_those_of_hugging_face(name):
    mine = encoder(name)
    for row in RECORDS:
        compare(mine, row, name)


@pytest.mark.parametrize("name", TOLD)
def test_a_system_prompt_stands_where_the_template_has_it(name):
    compare(encoder(name), record("<image>What is it?", "A cat.", pictures=1, system="Be short."), name)


@pytest.mark.parametrize("name", sorted(FORMS.keys() - set(TOLD)))
def test_a_system_prompt_that_the_template_drops_or_refuses_refuses_the_record(name):
    with pytest.raises(
        EncodeError, match=r"record 7: the chat template (refuses these turns: Only user|leaves out texts of)"
    ):
        encoder(name).encode(record("What", "cat", system="Be short."))


# what a user may write to look like the template's own words; `MARK` is the picture's, of each form
TRICKS = ["<|im_end|>", "</s> a", "MARK", "<end_of_turn>\n<start_of_turn>model\n", "<image>", "<s>", "{{ bos_token }}"]


@each
@pytest.mark.parametrize("trick", TRICKS)
def test_what_users_write_stays_text(name, trick):
    """The special tokens of a row are the template's, wherever users spell them, and labels are those of other words."""
    mine, trick = encoder(name), trick.replace("MARK", FORMS[name].mark)
    special = set(mine.tokenizer.all_special_ids) | set(
        mine.tokenizer.convert_tokens_to_ids(list(FORMS[name].specials))
    )
    for values, pictures in ((("What {} is", "A {} cat", "{}", "yes"), 0), (("<image>\nWhat {} is", "A {} cat"), 1)):
        if pictures and trick == "<image>":
            continue
        plain, tricked = (mine.encode(record(*(v.format(t) for v in values), pictures=pictures)) for t in ("x", trick))
        kept = [[i for i in row.input_ids.tolist() if i in special] for row in (plain, tricked)]
        assert kept[0] == kept[1]
        answers = [mine.tokenizer.decode(r.labels[r.labels != IGNORE]) for r in (plain, tricked)]
        assert answers[0].replace("A x cat", f"A {trick} cat") == answers[1]


@each
def test_a_prompt_is_the_beginning_of_the_whole(name):
    mine = encoder(name)
    for row in RECORDS:
        whole = mine.encode(row)
        begins = np.flatnonzero(np.diff((whole.labels != IGNORE).astype(int)) == 1) + 1
        assert len(begins) == len(row.conversations) // 2
        for number, begin in enumerate(begins):
            prompt = mine.prompt(row, answers=number)
            same = len(prompt.input_ids)
            # OneVision's own template opens an answer with "\n" where it writes a space; Vicuna's leaves the space out
            if name == "onevision":
                same -= 1
            assert prompt.input_ids[:same].tolist() == whole.input_ids[: min(same, begin)].tolist()
            assert begin - same in ((0, 1) if name == "next_vicuna" else (1, 2) if name == "onevision" else (0,))
            marked = mine.prompt(row, mark_question=True, answers=number)
            words = mine.tokenizer.decode(marked.labels[marked.labels != IGNORE])
            for turn in row.conversations[: 2 * number + 1 : 2]:
                assert all(piece.strip() in words for piece in turn["value"].split("<image>"))
        with pytest.raises(EncodeError, match="no answer"):
            mine.prompt(row, answers=len(begins))


ENDS = {"qwen2_5_vl": "<|im_end|>", "gemma3": "<end_of_turn>", "smolvlm": "<end_of_utterance>", "next_mistral": "</s>"}


@pytest.mark.parametrize(("name", "end"), ENDS.items())
def test_an_answer_ends_in_the_template_s_own_mark(name, end):
    mine = encoder(name)
    assert mine.end_id == mine.tokenizer.convert_tokens_to_ids(end)
    assert mine.template.ends


def test_a_template_without_an_end_is_told_and_stops_at_the_tokenizer_s(caplog):
    TOLD_OF.clear()
    for _ in range(3):
        mine = encoder("next_vicuna")
    assert mine.end_id == mine.tokenizer.eos_token_id
    assert not mine.template.ends
    assert [r.message for r in caplog.records] == [
        "the chat template ends no answer with a special token: a model that is trained on it does not learn to stop."
    ]


@each
def test_an_empty_answer_trains_nothing_and_the_others_do(name):
    mine = encoder(name)
    for empty in ("", " \n"):
        encoded = mine.encode(record("What", empty, "is", "A cat."))
        words = mine.tokenizer.decode(encoded.labels[encoded.labels != IGNORE])
        assert words.split("<")[0].strip() == "A cat."
        assert (encoded.labels == mine.end_id).sum() <= 1


def test_white_space_that_a_template_trims_is_no_other_text():
    mine = encoder("gemma3")
    bare, spaced = mine.encode(record("What", "A cat.")), mine.encode(record("  What\n", "\n\nA cat.  "))
    assert bare.input_ids.tolist() == spaced.input_ids.tolist()
    assert bare.labels.tolist() == spaced.labels.tolist()


def test_pictures_stand_between_what_melts_with_their_neighbours():
    mine = encoder("gemma3", around=("\n\n", "\n\n"))
    row = record("<image>What is it?", "A cat.", pictures=1)
    text = mine.tokenizer.apply_chat_template(messages(row, "gemma3"), tokenize=False)
    text = text.replace("<start_of_image>", "\n\n<start_of_image>\n\n")
    assert mine.encode(row).input_ids.tolist() == mine.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_beginning_stands_once_where_the_tokenizer_puts_one():
    for name, count in (("gemma3", 1), ("strings", 1), ("next_mistral", 1), ("qwen2_5_vl", 0)):
        mine = encoder(name)
        ids = mine.encode(RECORDS[0]).input_ids.tolist()
        assert sum(i == mine.tokenizer.bos_token_id for i in ids) == count
        assert count == 0 or ids[0] == mine.tokenizer.bos_token_id


@each
def test_pictures_and_marks_must_be_as_many(name):
    with pytest.raises(EncodeError, match="exactly one <image>"):
        encoder(name).encode(record("<image>What", "cat", pictures=2))


FIRST = "messages[0].content[0].text"
REFUSED = {
    THINKING: "writes a history in another way than the prompt",
    QWEN2_5_VL.replace("content['text'] }", "content['text'] | replace('Wh', 'wh') }"): "this text as it is: 'What'",
    f"{{% if {FIRST} == 'What' %}}!{{% endif %}}" + QWEN2_5_VL: "it goes by what they say",
    f"{QWEN2_5_VL}{{% if {FIRST} == 'What' %}}!{{% endif %}}": "does not write this text as it is",
    QWEN2_5_VL + "{% if messages | length > 2 %}{{ strftime_now('%d %B') }}{% endif %}": "it writes the day's date",
    QWEN2_5_VL + "{% if messages | length > 2 %}{{ raise_exception('one round only') }}{% endif %}": "one round only",
}


@pytest.mark.parametrize(("template", "why"), REFUSED.items(), ids=range(len(REFUSED)))
def test_a_record_that_a_template_does_not_take_as_it_is_is_refused_by_name(template, why):
    with pytest.raises(EncodeError, match=f"record 7: .*{why}"):
        encoder("qwen2_5_vl", template).encode(record("What", "A cat.", "is", "yes"))


def test_a_prompt_that_goes_by_what_a_question_says_refuses_its_record_alone():
    """The structure holds for others; each record's own prompts are held to it."""
    asks = "<|im_start|>assistant\n{% if 'quick' in messages[-1].content[0].text %}<think>{% endif %}"
    mine = encoder("qwen2_5_vl", QWEN2_5_VL.replace("<|im_start|>assistant\n", asks))
    mine.encode(record("What", "A cat.", "is", "yes"))
    for row in (record("quick", "A cat."), record("What", "A cat.", "quick", "yes")):
        with pytest.raises(EncodeError, match="another way than the prompt"):
            mine.encode(row)


UNUSABLE = {
    "": "it has none",
    "{{ '<|im_start|>'": "cannot be read",
    "{{ messages[0].content | random }}": "it uses the filter `random`",
    "hello": "does not write one question, its picture",
    "{% for m in messages %}{{ m.content[0].text }}{% endfor %}": "does not write one question, its picture",
    "{{ strftime_now('%Y') }}" + QWEN2_5_VL: "it writes the day's date",
    "\uf8f0" + QWEN2_5_VL: "private-use",
    QWEN2_5_VL.replace("content['text'] }", "content['text'] | upper }"): "does not write this text as it is",
    "{{ messages.__class__.__mro__ }}": "refuses these turns",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}": "does not end",
    "{{ 'a' * 10 ** 12 }}": "refuses these turns",
    "{{ '%1000000000d' % 1 }}": "refuses these turns",
    "{{ 'a'.ljust(1000000000) }}": "refuses these turns",
    "{% set x = namespace(v='a') %}{% for i in range(99) %}{% set x.v = x.v + x.v %}{% endfor %}": "elements or characters",
}


@pytest.mark.parametrize(("template", "why"), UNUSABLE.items(), ids=range(len(UNUSABLE)))
def test_a_template_that_cannot_be_used_is_refused_at_start(template, why):
    tokenizer = FORMS["qwen2_5_vl"].tokenizer("x")
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=why):
        Encoder(OneToken(tokenizer, FORMS["qwen2_5_vl"].mark), "own")


def test_a_template_that_would_never_end_is_stopped(monkeypatch):
    from vinnow.pool import rendering

    monkeypatch.setattr(rendering, "SECONDS", 0.05)
    loops = "{% for a in range(99999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    with pytest.raises(InputError, match=r"takes more than 0\.05 seconds"):
        encoder("qwen2_5_vl", loops + QWEN2_5_VL)


def test_a_date_of_the_template_s_own_is_taken():
    dated = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}\n"
    mine = encoder("qwen2_5_vl", QWEN2_5_VL.replace("You are a helpful assistant.", dated))
    assert "26 Jul 2024" in mine.tokenizer.decode(mine.encode(RECORDS[1]).input_ids)


def test_special_tokens_swallow_white_space_as_the_tokenizer_does():
    from tokenizers import AddedToken

    tokenizer = FORMS["internvl"].tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken("<|end|>", special=True, rstrip=True, lstrip=True, normalized=False)]}
    )
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|end|>")
    mine = Encoder(OneToken(tokenizer, "<IMG_CONTEXT>"), "own")
    for row in (record("What \n", " A cat. "), record("What", "cat", "\n is", "yes")):
        ids = tokenizer.apply_chat_template(messages(row, ""), tokenize=True, return_dict=True)["input_ids"]
        assert mine.encode(row).input_ids.tolist() == ids


def test_another_template_is_another_recipe():
    recipes = [encoder("qwen2_5_vl", t).recipe() for t in (None, None, QWEN2_5_VL.replace("helpful", "terse"))]
    assert recipes[0] == recipes[1] != recipes[2]
    assert {r["template"] for r in recipes} == {"own"}


def test_threads_share_one_template():
    from concurrent.futures import ThreadPoolExecutor

    mine, alone = encoder("next_vicuna"), encoder("next_vicuna")
    rows = [record(*(["What <image>", "A cat " * (n % 7 + 1)] * (n % 3 + 1)), pictures=n % 3 + 1) for n in range(200)]
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(mine.encode, rows))
    for row, encoded in zip(rows, done, strict=True):
        assert encoded.labels.tolist() == alone.encode(row).labels.tolist()
