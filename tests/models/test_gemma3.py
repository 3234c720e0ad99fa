"""Gemma 3 beside the families' contract: image tokens attend both ways, layers slide, and what does not fit is refused.

Its norms compute in float32, so that the contract can ask for 1e-5 alone; here they are given the type of their inputs, and
all else is float64.
"""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from vinnow.models import registry
from vinnow.models.components import add_lora, pick_linears
from vinnow.models.cost import RowSize, forward_flop
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.forward import decode, embed, last_hidden, on_device, with_blank
from vinnow.models.load import load, load_processor
from vinnow.models.moments import Moments
from vinnow.models.mores import add_mores
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.shape import read_shape
from vinnow.models.specs import LoraSpec, MoresSpec
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.forward import LossTap
from vinnow.models.taps.gradients import LEAN, GradientTap
from vinnow.models.taps.modes import make_transform
from vinnow.pool.collate import collate, stack
from vinnow.pool.encode import Encoded
from vinnow.pool.records import Record
from vinnow.store.errors import InputError

FAMILY = registry.find("gemma3")
SIZES = {"a": (64, 64), "b": (300, 40), "c": (17, 130)}
ASKED = "what is in this picture, and what else could be seen in it by one who looks?"
# long enough that windows of 16 tokens slide over all of them
ROWS = [
    ((ASKED, "a red square, as a rule, and nothing else in it"), ("a",)),
    ((ASKED, "no picture, so nothing at all"), ()),
    (("<image> or <image>? " + ASKED, "the first one, which is red"), ("b", "c")),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    texts = [text for turns, _ in ROWS for text in turns] * 20
    return FAMILY.tiny(str(tmp_path_factory.mktemp("gemma") / "model"), texts)


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch):
    def forward(self, x):
        return self._norm(x) * (1.0 + self.weight)

    monkeypatch.setattr(Gemma3RMSNorm, "forward", forward)


def picture(size):
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def record(number, turns, images):
    first = ("<image>\n" if len(images) == 1 else "") + turns[0]
    said = [{"from": "human", "value": first}, {"from": "gpt", "value": turns[1]}]
    return Record(number, "s", "t", tuple(images), said)


class Both:
    """The tiny model in float64 by one attention, and batches of `ROWS` for it."""

    def __init__(self, path, attn="sdpa"):
        loaded = load(path, "float64", attn=attn)
        self.model, self.processor = loaded.model, loaded.processor
        self.encoder = make_encoder(self.processor, default_template(path), 400)

    def batch(self, rows):
        shown = []
        for i in rows:
            turns, images = ROWS[i]
            row = self.encoder.encode(record(i + 1, turns, images))
            shown.append(row.showing([self.encoder.reader.prepare(picture(SIZES[name])) for name in images]))
        return self.encoder.finish(collate(shown, self.processor.tokenizer.pad_token_id))

    def theirs(self, batch):
        media = {n: v.double() for n, v in batch["media"].items()}
        return FAMILY.generating(self.model, batch | {"media": media})

    def ours(self, batch):
        return embed(self.model, on_device(batch, self.model))


@pytest.fixture(scope="module")
def both(path):
    return Both(path)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@torch.no_grad()
def test_masks_are_those_of_hugging_face(path, attn):
    t, seen = Both(path, attn), []
    keep = lambda module, args, kwargs: seen.append(kwargs["attention_mask"])  # noqa: E731
    t.model.model.language_model.register_forward_pre_hook(keep, with_kwargs=True)
    for rows in ([0], [2], [2, 1, 0]):
        batch = t.batch(rows)
        t.model(**t.theirs(batch))
        theirs, mine = seen.pop(), t.ours(batch)[1]["attention_mask"]
        real = batch["attention_mask"].bool()
        assert theirs.keys() == mine.keys() == {"full_attention", "sliding_attention"}
        for kind, mask in mine.items():
            assert mask.dtype == theirs[kind].dtype
            # what a pad attends to is nobody's
            assert torch.equal(mask[:, 0][real], theirs[kind][:, 0][real]), (rows, kind)
        assert not torch.equal(*mine.values())
    image = batch["input_ids"][0] == t.encoder.image_id
    assert int(image.sum()) == 8


@pytest.mark.parametrize("rows", [[0], [1], [2], [2, 1, 0]], ids=["one", "text", "two", "padded"])
@torch.no_grad()
def test_hidden_states_and_losses_are_those_of_hugging_face(both, rows):
    batch = both.batch(rows)
    out = both.model(**both.theirs(batch), output_hidden_states=True)
    real = batch["attention_mask"].bool()
    assert (last_hidden(both.model, on_device(batch, both.model)) - out.hidden_states[-1])[real].abs().max() <= 1e-9
    losses = LossTap(both.model)(batch)[:, 0]
    for i, row in enumerate(rows):
        alone = both.batch([row])
        assert losses[i] == pytest.approx(
            both.model(**both.theirs(alone), labels=alone["labels"]).loss.item(), rel=1e-6
        )


@torch.no_grad()
def test_eager_at_batch_one_is_what_a_padded_batch_gives(path, both):
    eager, batch = Both(path, "eager"), both.batch([2, 1, 0])
    together = last_hidden(both.model, on_device(batch, both.model))
    for i, row in enumerate([2, 1, 0]):
        alone = eager.batch([row])
        expected = eager.model(**eager.theirs(alone), output_hidden_states=True).hidden_states[-1][0]
        # eager attention takes its softmax in float32
        assert (together[i, : len(expected)] - expected).abs().max() <= 1e-5
        mine = last_hidden(both.model, on_device(both.batch([row]), both.model))[0]
        assert (together[i, : len(mine)] - mine).abs().max() <= 1e-11


@torch.no_grad()
def test_image_tokens_see_their_own_picture_and_no_later_one(both):
    model, batch = both.model, on_device(both.batch([2]), both.model)
    embeds_BTH, arguments = embed(model, batch)
    whole = decode(model, embeds_BTH, arguments)
    places = batch["image_at"][1].tolist()
    assert (decode(model, embeds_BTH, {}) - whole).abs().max() > 1e-3
    for changed, same in ((places[3], places[0] - 1), (places[7], places[4] - 1)):
        other = embeds_BTH.clone()
        other[0, changed] += 1
        moved = (decode(model, other, arguments) - whole)[0].abs().amax(-1) > 1e-9
        # the picture of the token that changed, from its first token on, and all behind it
        assert not moved[: same + 1].any()
        assert moved[same + 1 :].all()


@torch.no_grad()
def test_layers_slide(both):
    lm, batch = both.model.model.language_model, both.batch([0])
    assert batch["input_ids"].shape[1] > 3 * lm.config.sliding_window
    before = LossTap(both.model)(batch)
    lm.config.sliding_window = 400
    try:
        assert abs(LossTap(both.model)(batch) - before).max() > 1e-4
    finally:
        lm.config.sliding_window = 16


@torch.no_grad()
def test_rows_without_a_picture_need_no_mask(both):
    batch = on_device(both.batch([1]), both.model)
    assert embed(both.model, batch)[1] == {}
    assert embed(both.model, with_blank(batch, both.model))[1] == {}


@pytest.mark.parametrize("which", ["projector", "re:^model.language_model.layers.[01].*(q_proj|down_proj)"])
@pytest.mark.parametrize("fast", [True, False], ids=["lean", "hugging face"])
def test_gradients_are_those_of_autograd(path, both, which, fast):
    tap = GradientTap(load(path, "float64").model, which, ProjectionConfig(kind="none"), fast=fast)
    got = tap(both.batch([2, 1, 0]))
    assert tap.ran[LEAN] == (3 if fast else 0)
    wanted = tap.parameters()
    assert wanted.keys() <= {n for n, _ in both.model.named_parameters()}
    mine = dict(both.model.named_parameters())
    for i, row in enumerate([2, 1, 0]):
        alone = both.batch([row])
        logits = both.model(**both.theirs(alone)).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, alone["labels"][0, 1:])
        grads = torch.autograd.grad(loss, [mine[n] for n in wanted], allow_unused=True)
        expected = torch.cat(
            [torch.zeros(mine[n].numel()) if g is None else g.flatten() for g, n in zip(grads, wanted)]
        )
        assert np.abs(got[i] - expected.numpy()).max() <= 1e-9
    assert np.abs(got[0]).max() > 1e-6
    if which == "projector":
        assert not got[1].any()
        assert list(wanted) == ["model.multi_modal_projector.mm_input_projection_weight"]


def test_the_connector_s_moments_meet_its_gradients_in_its_own_layout(path, both):
    name = "model.multi_modal_projector.mm_input_projection_weight"
    weight = both.model.get_parameter(name)
    m, v = (torch.rand(weight.shape, generator=torch.manual_seed(i)).double() for i in range(2))
    moments = Moments({name: m}, {name: v}, 3, (0.9, 0.99), 1e-8, "")
    tap = GradientTap(
        load(path, "float64").model, "projector", ProjectionConfig(kind="none"), make_transform("adam", moments)
    )
    batch = both.batch([0])
    logits = both.model(**both.theirs(batch)).logits[0, :-1]
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, batch["labels"][0, 1:]), weight)
    # the step that would come next, the fourth
    first, second = (0.9 * m + 0.1 * grad) / (1 - 0.9**4), (0.99 * v + 0.01 * grad**2) / (1 - 0.99**4)
    np.testing.assert_allclose(tap(batch)[0], (first / (second.sqrt() + 1e-8)).flatten(), rtol=1e-9)


@torch.no_grad()
def test_trajectories_are_those_of_eager_attention(path, both):
    got = AttentionTap(both.model, 4, "heads")(both.batch([2, 1, 0]))
    eager = Both(path, "eager")
    for i, row in enumerate([2, 1, 0]):
        alone = eager.batch([row])
        image = (alone["input_ids"][0] == eager.encoder.image_id).nonzero()[:, 0]
        if not len(image):
            assert not got[i].any()
            continue
        layers = eager.model(**eager.theirs(alone), output_attentions=True).attentions
        whole = sum(a[0].double().mean(0) for a in layers)
        expected = torch.linalg.svdvals(whole[int(image[-1]) + 1 :, image])[:4]
        np.testing.assert_allclose(got[i], expected, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_words_are_scaled_and_pictures_are_not(both):
    batch = on_device(both.batch([0]), both.model)
    embeds_BTH, _ = embed(both.model, batch)
    words = both.model.get_input_embeddings().weight[batch["input_ids"]]
    image = both.model.get_image_features(batch["media"]["pixel_values"], return_dict=True).pooler_output
    text = ~FAMILY.image_mask(both.model.config, batch["input_ids"])
    assert torch.allclose(embeds_BTH[text], words[text] * 48**0.5, rtol=1e-6)
    assert torch.allclose(embeds_BTH[~text], image.flatten(0, 1), atol=1e-12)


def test_adapters_and_mores_change_nothing_before_they_are_trained(path, both):
    batch = both.batch([2, 1, 0])
    plain = LossTap(both.model)(batch)
    wrapped = add_lora(load(path, "float64").model, LoraSpec(r=2))
    assert LossTap(wrapped.eval())(batch) == pytest.approx(plain, abs=1e-6)
    assert {n.rsplit(".lora_", 1)[0].split("layers.")[0] for n in pick_linears(wrapped, "lora")} == {
        "model.language_model."
    }
    steered = load(path, "float64").model
    add_mores(steered, MoresSpec(rank=2, positions="f2+l2"))
    mine = last_hidden(steered, on_device(batch, steered))
    theirs = steered(**both.theirs(batch), output_hidden_states=True).hidden_states[-1]
    real = batch["attention_mask"].bool()
    assert (mine - theirs)[real].abs().max() <= 1e-9
    assert (mine - last_hidden(both.model, on_device(batch, both.model)))[real].abs().max() > 1e-4


def test_a_saved_folder_is_hugging_face_s_own(both, tmp_path):
    both.model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Gemma3ForConditionalGeneration"]
    alone = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(alone).__module__.startswith("transformers.")
    assert alone.state_dict().keys() == both.model.state_dict().keys()
    batch = both.batch([2, 1])
    with torch.no_grad():
        assert torch.allclose(alone(**both.theirs(batch)).logits, both.model(**both.theirs(batch)).logits, atol=1e-12)


def test_a_copy_s_connector_multiplies_by_the_copy_s_weight(both):
    model = copy.deepcopy(both.model)
    with torch.no_grad():
        model.model.multi_modal_projector.mm_input_projection_weight.zero_()
    (product,) = pick_linears(model, "projector").values()
    assert not product.weight.any()
    assert all(p.weight.any() for p in pick_linears(both.model, "projector").values())


def test_squares_and_words_are_the_processor_s_own(path):
    from transformers import Gemma3Processor

    processor = load_processor(path)
    reader = make_encoder(processor, default_template(path)).reader
    media = [reader.prepare(picture(size)) for size in SIZES.values()]
    row = Encoded(1, np.arange(3), np.arange(3), tuple("abc"), media=tuple(media))
    batch = reader.finish(stack([row])["media"])
    theirs = Gemma3Processor(processor.image_processor, processor.tokenizer, image_seq_length=4)
    words = f"before {reader.mark} between {reader.mark}{reader.mark}after"
    expected = theirs(images=[picture(size) for size in SIZES.values()], text=words, return_tensors="pt")
    assert {v.dtype for one in media for v in one.values()} == {np.dtype(np.uint8)}
    assert (batch["pixel_values"] - expected["pixel_values"]).abs().max() <= 1e-6
    one = "".join([reader.around[0], reader.tokenizer.decode(reader.ids(None)), reader.around[1]])
    again = reader.tokenizer(words.replace(reader.mark, one))["input_ids"]
    assert again == expected["input_ids"][0].tolist()
    assert reader.fixed == 4 == reader.ids(None).count(reader.image_id)


def test_rows_are_those_of_the_processor_s_chat_template(both):
    from transformers import Gemma3Processor

    tokenizer = both.processor.tokenizer
    theirs = Gemma3Processor(both.processor.image_processor, tokenizer, tokenizer.chat_template, image_seq_length=4)
    said = ["  <image>\n" + ASKED, "a red square", "<image><image>and now? ", "the first one, as a rule"]
    turns = [{"from": who, "value": text} for who, text in zip(["human", "gpt"] * 2, said, strict=True)]
    row = both.encoder.encode(Record(1, "s", "t", ("a.png", "b.png", "c.png"), turns, {"system": "look, then answer"}))
    chat = [{"role": "system", "content": [{"type": "text", "text": "look, then answer"}]}]
    for who, text in zip(["user", "assistant"] * 2, said, strict=True):
        parts = [p for piece in text.split("<image>") for p in ({"type": "image"}, {"type": "text", "text": piece})][1:]
        # a text that is not there is no part
        chat.append({"role": who, "content": [p for p in parts if p.get("text") != "" and p.get("text") != "  "]})
    text = theirs.apply_chat_template(chat)
    pictures = [picture(size) for size in SIZES.values()]
    expected = theirs(images=pictures, text=text, add_special_tokens=False, return_tensors="pt")
    assert row.input_ids.tolist() == expected["input_ids"][0].tolist()
    kinds = FAMILY.image_mask(both.model.config, torch.from_numpy(row.input_ids))
    assert torch.equal(kinds.long(), expected["token_type_ids"][0])
    trained = row.input_ids[row.labels != -100]
    assert tokenizer.decode(trained) == "a red square<end_of_turn>the first one, as a rule<end_of_turn>"


def test_a_price_is_of_what_runs(path, both):
    shape = read_shape(path)
    assert sum(shape.parameters().values()) == sum(p.numel() for p in both.model.parameters())
    (product,) = shape.chosen("projector")
    assert (product.inputs, product.outputs, product.rows, shape.image_tokens) == (32, 48, 4.0, 4)
    flop = forward_flop(shape, RowSize.fixed(100, 10)).items
    assert flop["projector fwd"] == pytest.approx(2 * 4 * 32 * 48 / 1e12)
    attention = 48 * 16 * (4 + 2 + 2 + 4)
    # older versions of transformers multiply rotary angles
    assert flop["linears fwd"] == pytest.approx(100 * 3 * 2 * (attention + 3 * 48 * 64) / 1e12, rel=1e-3)


def test_what_it_cannot_do_is_said(path, both):
    processor = load_processor(path)
    processor.image_processor.do_pan_and_scan = True
    with pytest.raises(InputError, match="do_pan_and_scan"):
        make_encoder(processor, default_template(path))
    with pytest.raises(InputError, match="set image_mode: pad"):
        make_encoder(both.processor, default_template(path), image_mode="square")
    config = both.model.model.language_model.config
    config._attn_implementation = "flash_attention_2"
    try:
        with pytest.raises(InputError, match=r"flash_attention_2.*attend both ways"):
            both.ours(both.batch([0]))
    finally:
        config._attn_implementation = "sdpa"


@pytest.mark.parametrize(
    ("file", "section", "name", "value", "message"),
    [
        ("config.json", None, "mm_tokens_per_image", 5, "4 × 4 patches cannot be averaged"),
        ("config.json", None, "mm_tokens_per_image", 9, "4 × 4 patches cannot be averaged"),
        ("config.json", None, "mm_tokens_per_image", 16, "mm_tokens_per_image 16, the processor's image_seq_length 4"),
        ("config.json", None, "boi_token_index", 3, "boi_token_index 3, the tokenizer's of <start_of_image> is"),
        ("config.json", "text_config", "use_bidirectional_attention", True, "it cannot answer"),
        (
            "config.json",
            "text_config",
            "layer_types",
            ["full_attention", "chunked_attention", "full_attention"],
            "chunked",
        ),
        (
            "preprocessor_config.json",
            None,
            "size",
            {"height": 64, "width": 64},
            "image_size 32, the image processor 64",
        ),
        ("preprocessor_config.json", None, "do_normalize", False, "the image processor has do_normalize off"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(path, tmp_path, file, section, name, value, message):
    shutil.copytree(path, tmp_path / "model")
    place = tmp_path / "model" / file
    settings = json.loads(place.read_text())
    (settings if section is None else settings[section])[name] = value
    place.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=message):
        load(str(tmp_path / "model"))
