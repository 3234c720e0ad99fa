"""The laws of a family of models, for all registered ones: a new file in `models/family/` is adopted unnamed.

Each is held on its tiny model in float64, on rows of a picture, of none, and of several of different sizes.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from vinnow.models import registry
from vinnow.models.check import check_model
from vinnow.models.components import component_of, parameters_of, pick_linears
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.forward import decode, embed, last_hidden, on_device, seen_once, with_blank
from vinnow.models.load import load
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.forward import LossTap
from vinnow.models.taps.gradients import LEAN, GradientTap
from vinnow.models.taps.lean.architectures import TABLE
from vinnow.pool.collate import collate
from vinnow.pool.decode import Decoder
from vinnow.pool.encode import IGNORE, EncodeError
from vinnow.pool.records import Record
from vinnow.store.errors import InputError
from vinnow.train.loss import LossModule

NAMES = sorted(registry.families())
SIZES = {"a": (64, 64), "b": (90, 40), "c": (40, 120), "d": (31, 30), "e": (50, 50)}
each = pytest.mark.parametrize("name", NAMES)


def record(number, turns, *images):
    """A record of (question, answer) pairs."""
    said = [{"from": who, "value": text} for pair in turns for who, text in zip(("human", "gpt"), pair, strict=True)]
    return Record(number, "s", "t", tuple(f"{i}.png" for i in images), said)


RECORDS = [
    record(1, [("<image>\nwhat is it?", "a red square"), ("and now?", "blue it is"), ("sure?", "yes")], "a"),
    record(2, [("no picture here: what color is blood?", "red, as a rule")]),
    record(3, [("<image> or <image>?", "the first one")], "b", "c"),
    record(4, [("<image>\nhere?", "no"), ("<image>\nand here, or behind it?", "there, yes")], "d", "e"),
    record(5, [("<image>\nred?", "no")], "c"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return str(folder)


class Tiny:
    """A family's tiny model, loaded, with its encoder."""

    def __init__(self, name, folder, root):
        self.family, self.root = registry.families()[name], root
        texts = [turn["value"] for r in RECORDS for turn in r.conversations] * 20
        self.path = self.family.tiny(str(folder / "model"), texts)
        loaded = load(self.path, "float64")
        self.model, self.processor = loaded.model, loaded.processor
        self.encoder = make_encoder(self.processor, default_template(self.path), 400)

    def rows(self, records=RECORDS):
        sizes = [self.encoder.sizes(self.root, r) for r in records]
        encoded = [self.encoder.encode(r, s) for r, s in zip(records, sizes, strict=True)]
        return [self.showing(row, r) for row, r in zip(encoded, records, strict=True)]

    def showing(self, row, record):
        return row.showing([self.encoder.load(self.root, i, among=len(record.images)) for i in row.images])

    def batch(self, records=RECORDS, side="right"):
        pad = self.processor.tokenizer.pad_token_id
        return self.encoder.finish(collate(self.rows(records), pad, side))

    def theirs(self, batch):
        """What Hugging Face's own forward is given of a batch."""
        media = {n: v.double() if v.is_floating_point() else v for n, v in batch["media"].items()}
        return self.family.generating(self.model, batch | {"media": media})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, root):
    models = {}

    def get(name):
        if name not in models:
            models[name] = Tiny(name, tmp_path_factory.mktemp(name), root)
        return models[name]

    return get


def test_the_suite_sees_every_family():
    assert "llava" in NAMES
    with pytest.raises(registry.UnknownFamilyError, match=r"'lava'; did you mean 'llava'\?"):
        registry.find("lava")
    with pytest.raises(registry.UnknownFamilyError, match="no family of models has a Words"):
        registry.family_of_processor(type("Words", (), {})())


@pytest.mark.works("logits of rows with a picture, several, none")
@each
@pytest.mark.parametrize("some", [slice(None), slice(1, 2), slice(2, 4)], ids=["mixed", "text", "several pictures"])
@torch.no_grad()
def test_logits_are_those_of_hugging_face(tiny, name, some):
    t = tiny(name)
    batch = t.batch(RECORDS[some])
    mine = on_device(batch, t.model)
    logits = t.family.head(t.model)(decode(t.model, *embed(t.model, mine)))
    expected = t.model(**t.theirs(batch)).logits
    real = batch["attention_mask"].bool()
    assert torch.allclose(logits[real], expected[real], atol=1e-9)
    assert len(logits[real].unique()) > 100


@each
@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch(tiny, name):
    t = tiny(name)
    tap = LossTap(t.model)
    together = tap(t.batch())[:, 0]
    assert len(set(together.tolist())) == len(RECORDS)
    for order in ([4, 3, 2, 1, 0], [2, 0], [1, 3]):
        assert tap(t.batch([RECORDS[i] for i in order]))[:, 0] == pytest.approx(together[order], rel=1e-6)
    for i, one in enumerate(RECORDS):
        assert tap(t.batch([one]))[0, 0] == pytest.approx(together[i], rel=1e-6)


@pytest.mark.works("several pictures, in their order")
@each
def test_rows_that_several_threads_read_are_those_of_one(tiny, name):
    t = tiny(name)
    wanted = t.rows()
    for _ in range(12):  # new encoders: what they keep of the first rows would hide it
        encoder = make_encoder(t.processor, default_template(t.path), 400)
        for row, one in zip(Decoder(encoder, t.root, threads=4).rows(RECORDS), wanted, strict=True):
            assert (row.input_ids.tolist(), row.labels.tolist()) == (one.input_ids.tolist(), one.labels.tolist())
            assert all(np.array_equal(a[n], b[n]) for a, b in zip(row.media, one.media, strict=True) for n in b)


@each
@torch.no_grad()
def test_the_order_of_pictures_matters(tiny, name):
    t = tiny(name)
    turned = record(3, [("<image> or <image>?", "the first one")], "c", "b")
    both = LossTap(t.model)(t.batch([RECORDS[2], turned]))[:, 0]
    assert abs(both[0] - both[1]) > 1e-7


@each
@torch.no_grad()
def test_image_tokens_are_as_many_as_the_tower_gives(tiny, name):
    t = tiny(name)
    batch = on_device(t.batch(), t.model)
    mask_BT = t.family.image_mask(t.model.config, batch["input_ids"])
    shown_RH = t.family.connect(t.model, t.family.see(t.model, batch["media"]), batch["media"])
    assert shown_RH.shape == (int(mask_BT.sum()), t.family.width(t.model.config))
    assert (mask_BT.sum(1) > 0).tolist() == [bool(r.images) for r in RECORDS]
    assert not (mask_BT & (batch["labels"] != IGNORE)).any()
    embeds_BTH, _ = embed(t.model, batch)
    assert torch.equal(embeds_BTH[mask_BT], shown_RH.to(embeds_BTH.dtype))
    # what is seen once serves every model of the same tower
    again, _ = embed(t.model, batch | {"seen": seen_once(t.model, batch["media"])})
    assert torch.equal(again, embeds_BTH)


@each
def test_pictures_that_do_not_match_are_refused(tiny, name):
    t = tiny(name)
    batch, other = t.batch([RECORDS[2]]), t.batch([RECORDS[4]])
    with pytest.raises(InputError, match="image tokens and no picture"):
        embed(t.model, on_device(batch | {"media": {}}, t.model))
    with pytest.raises(InputError, match="image tokens, its pictures give"):
        embed(t.model, on_device(batch | {"media": other["media"]}, t.model))


@each
def test_components_hold_every_parameter_once(tiny, name):
    t = tiny(name)
    mine = {n for n, _ in t.model.named_parameters(remove_duplicate=False)}
    named = t.family.components.by_module()
    bare = dict(t.model.named_parameters())
    for module in named.keys() - mine:
        t.model.get_submodule(module)
    longest = {n: max((m for m in named if f"{n}.".startswith(f"{m}.")), key=len) for n in mine}
    assert {n: named[m] for n, m in longest.items()} == {n: component_of(n) for n in mine}
    assert set(longest.values()) == set(named)
    whole = {id(p) for p in t.model.parameters()}
    modules = [
        *t.family.vision(t.model),
        t.family.connector(t.model),
        t.family.decoder(t.model),
        t.family.head(t.model),
    ]
    held = {id(p) for module in modules for p in module.parameters()} | {id(bare[n]) for n in named if n in mine}
    assert held == whole
    assert len(t.family.decoder(t.model).layers) == t.model.config.get_text_config().num_hidden_layers
    assert t.family.lora_names(t.model)


@each
def test_training_is_the_same_forward_and_blank_pictures_change_nothing(tiny, name):
    t = tiny(name)
    batch = t.batch()
    labels = batch["labels"]
    expected = t.model(**t.theirs(batch), labels=labels).loss
    assert LossModule(t.model)(batch).item() == pytest.approx(expected.item(), rel=1e-5)  # ours is summed in float32
    text = on_device(t.batch([RECORDS[1]]), t.model)
    with torch.no_grad():
        plain, blank = (last_hidden(t.model, b) for b in (text, with_blank(text, t.model)))
    assert torch.allclose(plain, blank, atol=1e-12)
    t.model.zero_grad()
    LossModule(t.model)(t.batch([RECORDS[1]])).backward()
    assert all(p.grad is not None for p in t.family.connector(t.model).parameters())
    t.model.zero_grad()


@each
@pytest.mark.parametrize("part", ["projector", "vision_tower", "language_model"])
def test_gradients_are_those_of_one_row_at_a_time(tiny, name, part):
    t = tiny(name)
    linears = [
        n for n, m in t.model.named_modules() if isinstance(m, torch.nn.Linear) and component_of(f"{n}.x") == part
    ]
    which = "projector" if part == "projector" else "re:" + "|".join(f"^{n}$" for n in linears[:3])
    model = load(t.path, "float64").model
    tap = GradientTap(model, which, ProjectionConfig(kind="none"))
    got = tap(t.batch())
    if type(t.family.decoder(model)).__name__ in TABLE:  # the lean decoder runs whatever the family tells it
        assert tap.facts()["ran"] == {LEAN: len(RECORDS)}
    wanted = list(parameters_of(pick_linears(t.model, which)).values())
    for i, one in enumerate(RECORDS):
        batch = t.batch([one])
        loss = t.model(**t.theirs(batch), labels=batch["labels"]).loss
        grads = torch.autograd.grad(loss, wanted, allow_unused=True)
        expected = torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(grads, wanted)])
        # some norms and losses round to float32 inside
        assert np.abs(got[i] - expected.numpy()).max() <= 1e-5 * max(1e-3, float(expected.abs().max()))
    assert np.abs(got[0]).max() > 0


def seen_text(batch, image_BT):
    """Which columns of one row are image tokens, and which rows are text behind the last of them."""
    columns = image_BT[0].nonzero()[:, 0]
    return columns, torch.arange(int(columns[-1]) + 1, len(image_BT[0]))


@each
def test_trajectories_of_heads_are_those_of_eager_attention(tiny, name):
    t = tiny(name)
    eager = load(t.path, "float64", attn="eager").model
    got = AttentionTap(t.model, 5, "heads")(t.batch())
    for i, one in enumerate(RECORDS):
        batch = t.batch([one])
        image_BT = t.family.image_mask(t.model.config, batch["input_ids"])
        if not image_BT.any():
            assert not got[i].any()
            continue
        with torch.no_grad():
            attentions = eager(**t.theirs(batch), output_attentions=True).attentions
        columns, text = seen_text(batch, image_BT)
        whole = sum(a[0].double().mean(0) for a in attentions)
        expected = torch.linalg.svdvals(whole[text][:, columns])[:5].numpy()
        # eager softmax and norms round to float32 inside
        np.testing.assert_allclose(got[i], np.pad(expected, (0, 5 - len(expected))), rtol=1e-5, atol=1e-6)


@each
def test_trajectories_of_flat_products_are_those_of_a_naive_loop(tiny, name):
    t = tiny(name)
    got = AttentionTap(t.model, 5, "flat")(t.batch())
    layers = [layer.self_attn for layer in t.family.decoder(t.model).layers]
    for i, one in enumerate(RECORDS):
        batch, kept = t.batch([one]), []
        image_BT = t.family.image_mask(t.model.config, batch["input_ids"])
        if not image_BT.any():
            assert not got[i].any()
            continue
        linears = [linear for layer in layers for linear in (layer.q_proj, layer.k_proj)]
        hooks = [
            linear.register_forward_hook(lambda m, a, out, kept=kept: kept.append(out[0].double()))
            for linear in linears
        ]
        with torch.no_grad():
            t.model(**t.theirs(batch))
        for hook in hooks:
            hook.remove()
        (columns, text), whole = seen_text(batch, image_BT), 0
        for layer, query, key in zip(layers, kept[::2], kept[1::2], strict=True):
            heads = key.view(len(key), -1, layer.head_dim)
            # each key serves several heads of queries
            heads = heads.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            scores = query[text] @ heads.flatten(1).T / query.shape[1] ** 0.5
            whole = whole + torch.softmax(scores, -1)[:, columns]
        expected = torch.linalg.svdvals(whole)[:5].numpy()
        np.testing.assert_allclose(got[i], np.pad(expected, (0, 5 - len(expected))), rtol=1e-5, atol=1e-6)


@pytest.mark.works("labels, and prompts of a history")
@each
def test_a_prompt_of_a_history_is_the_beginning_of_the_whole(tiny, name):
    t = tiny(name)
    for one in RECORDS:
        sizes = t.encoder.sizes(t.root, one)
        whole = t.encoder.encode(one, sizes)
        begins = np.flatnonzero(np.diff((whole.labels != IGNORE).astype(int)) == 1) + 1
        answers = len(one.conversations) // 2
        assert len(begins) == answers
        for number, begin in enumerate(begins):
            prompt = t.encoder.prompt(one, sizes=sizes, answers=number)
            assert prompt.input_ids.tolist() == whole.input_ids[:begin].tolist()
            assert (prompt.labels == IGNORE).all()
            shown = int((prompt.input_ids == t.encoder.image_id).any()) and len(prompt.images)
            marks = sum(turn["value"].count("<image>") for turn in one.conversations[: 2 * number + 1])
            assert shown == marks
        with pytest.raises(EncodeError, match="no answer"):
            t.encoder.prompt(one, sizes=sizes, answers=answers)


@each
def test_answers_are_those_of_plain_generate(tiny, name):
    t = tiny(name)
    rows = [RECORDS[i] for i in (1, 2, 4)]
    prompts = [t.encoder.prompt(r, sizes=t.encoder.sizes(t.root, r)) for r in rows]
    shown = [t.showing(p, r) for p, r in zip(prompts, rows, strict=True)]
    pad, words = t.processor.tokenizer.pad_token_id, {"max_new_tokens": 6, "do_sample": False}
    together = t.encoder.finish(collate(shown, pad, "left"))
    new = t.model.generate(**t.theirs(together), **words)[:, together["input_ids"].shape[1] :]
    for i, row in enumerate(shown):
        alone = t.encoder.finish(collate([row], pad, "left"))
        mine = t.model.generate(**t.theirs(alone), **words)[0, len(row.input_ids) :]
        assert new[i, : len(mine)].tolist() == mine.tolist()
    assert len({tuple(n.tolist()) for n in new}) > 1


@each
def test_a_saved_model_is_the_model(tiny, name, tmp_path):
    t = tiny(name)
    check_model(t.path)
    t.model.save_pretrained(tmp_path / "again")
    t.processor.save_pretrained(tmp_path / "again")
    again = load(str(tmp_path / "again"), "float64")
    assert registry.family_of(again.model) is t.family
    assert all(torch.equal(a, b) for a, b in zip(t.model.parameters(), again.model.parameters(), strict=True))
    encoder = make_encoder(again.processor, default_template(t.path), 400)
    for row, one in zip(t.rows(), RECORDS, strict=True):
        assert row.input_ids.tolist() == encoder.encode(one, encoder.sizes(t.root, one)).input_ids.tolist()
        for media, image in zip(row.media, one.images, strict=True):
            other = encoder.load(t.root, image, among=len(one.images))
            assert all(np.array_equal(media[n], other[n]) for n in media)
    # it is Hugging Face's own folder
    alone = t.family.class_of(t.model.config).from_pretrained(tmp_path / "again", dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(t.model.parameters(), alone.parameters(), strict=True))
