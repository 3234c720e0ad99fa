"""The generator: rows of a batch go their own ways, draws are what Hugging Face's filters leave, histories are prompts."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from vinnow.evaluate.generator import Generator, Turn, first_stop
from vinnow.evaluate.sampling import Chooser, Sampling, draw
from vinnow.models import registry
from vinnow.models.encoding import default_template
from vinnow.models.load import load
from vinnow.pool.encode import EncodeError
from vinnow.pool.images import load_image
from vinnow.pool.inputs import InputConfig
from vinnow.pool.reader import Pool
from vinnow.pool.records import Record


@pytest.fixture(scope="module")
def generator(tiny_model):
    return Generator(load(tiny_model), InputConfig())


@pytest.fixture(scope="module")
def prompts(tiny_pool, generator):
    pool = Pool(tiny_pool)
    records = pool.take(pool.ids()[:6])
    assert any(r.images for r in records)
    shown = [[load_image(pool.image_root, i) for i in r.images] for r in records]
    return [
        generator.encode([Turn("human", r.conversations[0]["value"])], pictures)
        for r, pictures in zip(records, shown, strict=True)
    ]


def test_rows_of_a_batch_have_lengths_of_their_own(generator, prompts):
    lengths = [1, 2, 3, 4, 5, 6]
    replies = generator.reply(prompts, [Sampling(max_new_tokens=n) for n in lengths])
    alone = [generator.reply([p], [Sampling(max_new_tokens=n)])[0] for p, n in zip(prompts, lengths, strict=True)]
    assert replies == alone
    assert [len(r.tokens) for r in replies] == lengths
    assert {r.finish for r in replies} == {"length"}
    assert [r.prompt_tokens for r in replies] == [len(p.input_ids) for p in prompts]


def test_an_end_mark_ends_a_row_and_is_no_text(generator, prompts, monkeypatch):
    plain = generator.reply(prompts, [Sampling(max_new_tokens=6)] * 6)
    mark = plain[0].tokens[2]
    base = generator.model
    monkeypatch.setattr(generator, "ends", [mark])
    monkeypatch.setattr(base.generation_config, "eos_token_id", [mark])
    replies = generator.reply(prompts, [Sampling(max_new_tokens=6)] * 6)
    watched = generator.reply(prompts, [Sampling(max_new_tokens=6)] * 6, lambda row, token: True)
    assert replies == watched
    for before, now in zip(plain, replies, strict=True):
        first = before.tokens.index(mark) + 1 if mark in before.tokens else 6
        assert now.tokens == before.tokens[:first]
        assert now.finish == ("stop" if mark in before.tokens else "length")
    assert replies[0].finish == "stop"


def test_a_stop_text_is_cut_off_and_ends_its_row_alone(generator, prompts):
    plain = generator.reply(prompts, [Sampling(max_new_tokens=8)] * 6)
    words = plain[0].text
    assert len(words) > 6
    stop = words[4:6]
    replies = generator.reply(
        prompts, [Sampling(max_new_tokens=8, stop=(stop, "never said")), *[Sampling(max_new_tokens=8)] * 5]
    )
    assert replies[1:] == plain[1:]
    assert replies[0].finish == "stop"
    assert replies[0].text == words[: words.index(stop)].strip()
    assert stop in generator.text(replies[0].tokens)
    assert stop not in generator.text(replies[0].tokens[:-1])


def test_a_row_is_given_up_and_the_others_go_on(generator, prompts):
    heard = {i: [] for i in range(6)}

    def watch(row, token):
        heard[row].append(token)
        return not (row == 1 and len(heard[row]) == 2)

    plain = generator.reply(prompts, [Sampling(max_new_tokens=5)] * 6)
    replies = generator.reply(prompts, [Sampling(max_new_tokens=5)] * 6, watch)
    assert (replies[1].finish, replies[1].tokens) == ("given_up", plain[1].tokens[:2])
    assert [r for i, r in enumerate(replies) if i != 1] == [r for i, r in enumerate(plain) if i != 1]
    assert heard == {i: list(r.tokens) for i, r in enumerate(replies)}


def test_a_seeded_draw_does_not_depend_on_the_rows_beside_it(generator, prompts):
    def drawn(seed):
        return Sampling(temperature=1.5, max_new_tokens=6, seed=seed)

    alone = [generator.reply([prompts[0]], [drawn(s)])[0].tokens for s in (1, 2, 3)]
    assert len(set(alone)) == 3
    mixed = [
        drawn(1),
        Sampling(max_new_tokens=6),
        drawn(7),
        drawn(8),
        Sampling(temperature=2, max_new_tokens=6),
        drawn(9),
    ]
    replies = generator.reply(prompts, mixed)
    assert replies[0].tokens == alone[0]
    assert replies[1] == generator.reply([prompts[1]], [Sampling(max_new_tokens=6)])[0]
    loose = {generator.reply([prompts[0]], [drawn(None)])[0].tokens for _ in range(4)}
    assert len(loose) > 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1),
        Sampling(temperature=0.3, top_k=3),
        Sampling(temperature=2, top_p=0.6),
        Sampling(temperature=1.3, top_k=5, top_p=0.8),
        Sampling(temperature=0.001),
        Sampling(temperature=1, top_p=1e-9),
    ],
    ids=str,
)
def test_draws_are_what_hugging_faces_filters_leave(sampling):
    torch.manual_seed(0)
    scores_V = torch.randn(12) * 2
    scores_V[3] = -torch.inf
    filtered_1V = TemperatureLogitsWarper(sampling.temperature)(None, scores_V[None].double())
    if sampling.top_k:
        filtered_1V = TopKLogitsWarper(sampling.top_k)(None, filtered_1V)
    if sampling.top_p < 1:
        filtered_1V = TopPLogitsWarper(sampling.top_p)(None, filtered_1V)
    wanted_V = filtered_1V.softmax(-1)[0].numpy()
    n = 20_000
    uniform_N = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    words_N = draw(scores_V.expand(n, -1), [sampling] * n, uniform_N)
    np.testing.assert_allclose(np.bincount(words_N, minlength=12) / n, wanted_V, atol=1.5 / n)
    # the very ends of the unit interval
    ends = draw(scores_V.expand(2, -1), [sampling] * 2, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert wanted_V[ends.numpy()].min() > 0


def test_a_row_of_nan_is_told_and_spoils_no_other():
    scores_BV = torch.tensor([[0.0, 1.0, 2.0], [float("nan")] * 3, [torch.inf, 0.0, 0.0], [-torch.inf, 0.0, 1.0]])
    chooser = Chooser([Sampling(temperature=1, seed=0), Sampling(temperature=1), Sampling(), Sampling()])
    chosen_BV = chooser(torch.zeros(4, 1, dtype=torch.long), scores_BV)
    assert chooser.bad() == [False, True, True, False]
    assert chosen_BV[0].isfinite().sum() == 1
    assert torch.equal(chosen_BV[3], scores_BV[3])


@pytest.mark.parametrize(
    ("text", "stops", "place"), [("a b", ("b", "a"), 0), ("a b", ("c",), None), ("", ("x",), None)]
)
def test_the_first_stop_text_counts(text, stops, place):
    assert first_stop(text, stops) == place


@pytest.mark.parametrize("name", sorted(registry.families()))
def test_a_history_with_pictures_is_answered_by_every_family(name, tmp_path):
    """The prompt is what stands before the last answer of the whole conversation, token by token."""
    texts = ["<image> what is it? a box, how many? two and here? red"] * 20
    loaded = load(registry.families()[name].tiny(str(tmp_path / "model"), texts), "float64")
    generator = Generator(loaded, InputConfig(template=default_template(loaded.path), max_len=600))
    pictures = [Image.new("RGB", size, "red") for size in ((64, 64), (90, 40))]
    turns = [Turn("human", "<image>\nwhat is it?"), Turn("gpt", "a box"), Turn("human", "<image> and here?")]
    prompt = generator.encode(turns, pictures)
    said = [{"from": t.role, "value": t.text} for t in [*turns, Turn("gpt", "red")]]
    record = Record(1, "s", "t", ("a", "b"), said)
    whole = generator.encoder.encode(record, [p.size for p in pictures])
    n = len(prompt.input_ids)
    assert np.array_equal(prompt.input_ids, whole.input_ids[:n])
    assert whole.labels[n] >= 0
    first, alone = generator.encode(turns[:1], pictures[:1]), generator.encode([Turn("human", "no picture: what?")])
    sampling = Sampling(max_new_tokens=4)
    together = generator.reply([prompt, first, alone], [sampling] * 3)
    assert together == [generator.reply([p], [sampling])[0] for p in (prompt, first, alone)]
    assert all(r.finite for r in together)


def test_an_answer_ends_where_positions_do(generator, prompts, monkeypatch):
    longest = max(len(p.input_ids) for p in prompts)
    monkeypatch.setattr(generator, "positions", longest + 2)
    replies = generator.reply(prompts, [Sampling(max_new_tokens=5)] * 6)
    room = [longest + 2 - len(p.input_ids) for p in prompts]
    assert [(len(r.tokens), r.finish) for r in replies] == [(min(5, n), "length") for n in room]
    monkeypatch.setattr(generator, "positions", longest)
    with pytest.raises(EncodeError, match="positions"):
        generator.reply(prompts, [Sampling(max_new_tokens=5)] * 6)


def test_a_prompt_that_cannot_be_is_refused(generator, tiny_pool):
    pool = Pool(tiny_pool)
    record = next(r for r in pool.take(pool.ids()) if r.images)
    picture = load_image(pool.image_root, record.images[0])
    with pytest.raises(EncodeError, match="max_len"):
        generator.encode([Turn("human", "word " * 3000)])
    with pytest.raises(EncodeError, match="pictures: 1, marks: 0"):
        generator.encode([Turn("human", "what is it?")], [picture])


@pytest.mark.parametrize(("text", "system"), [("what\udcff?", ""), ("what?", "\ud800")])
def test_what_is_no_text_is_refused(generator, text, system):
    with pytest.raises(EncodeError, match="is no UTF-8 text"):
        generator.encode([Turn("human", text)], system=system)
