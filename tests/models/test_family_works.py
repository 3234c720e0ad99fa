"""What is taken of a row (loss, embedding, gradients, attention) on every family's tiny model, in float64.

The oracle is Hugging Face's own forward pass of one row alone. Both sides stay in float64 (`tinies.Wide`), so that what is
compared is the mathematics: 1e-9 of the largest value.
"""

from functools import partial

import numpy as np
import pytest
import torch
from tinies import RECORDS, TEXT, Wide, each_family
from vinnow.models.components import add_lora, component_of, parameters_of, pick_linears, tied_linears
from vinnow.models.load import load
from vinnow.models.products import LINEARS
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.shape import read_shape
from vinnow.models.specs import LoraSpec
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.entropy import EntropyTap
from vinnow.models.taps.forward import EmbeddingTap, LossTap
from vinnow.models.taps.gradients import GradientTap
from vinnow.pool.encode import IGNORE
from vinnow.store.errors import InputError

CLOSE = 1e-9


def close(mine, theirs):
    """Hold values to others by the largest of these, which must be more than nothing."""
    theirs = np.asarray(theirs)
    assert np.abs(theirs).max() > 0
    assert np.abs(np.asarray(mine) - theirs).max() <= CLOSE * np.abs(theirs).max()


@pytest.mark.works("loss and entropy")
@each_family
@torch.no_grad()
def test_losses_and_entropies_are_those_of_hugging_face_s_logits(tiny_of, name):
    t = tiny_of(name)
    with Wide():
        asked = [t.theirs(r) for r in RECORDS]
        outputs = [t.model(**one) for one in asked]
        close(LossTap(t.model)(t.batch())[:, 0], [out.loss for out in outputs])
        entropies = []
        for out, one in zip(outputs, asked, strict=True):
            logits_LV = out.logits[0, :-1][one["labels"][0, 1:] != IGNORE]
            entropies.append(torch.distributions.Categorical(logits=logits_LV).entropy().mean())
        close(EntropyTap(t.model)(t.batch())[:, 0], entropies)


@pytest.mark.works("embeddings")
@each_family
@torch.no_grad()
def test_embeddings_are_means_of_what_hugging_face_computes(tiny_of, name):
    t = tiny_of(name)
    kept, expected = {}, {"text": [], "image": []}
    hook = t.family.decoder(t.model).register_forward_pre_hook(
        lambda m, a, k: kept.update(embeds=k["inputs_embeds"]), with_kwargs=True
    )
    with Wide():
        for record in RECORDS:
            asked = t.theirs(record)
            last = t.model(**asked, output_hidden_states=True).hidden_states[-1][0]
            image_T = t.family.image_mask(t.model.config, asked["input_ids"])[0]
            expected["text"].append(last[~image_T].mean(0))
            expected["image"].append(kept["embeds"][0, image_T].sum(0) / max(1, int(image_T.sum())))
        hook.remove()
        mine = {pooling: EmbeddingTap(t.model, pooling)(t.batch()) for pooling in ("text", "image", "both")}
    expected = {n: torch.stack(v).numpy() for n, v in expected.items()}
    for pooling in ("text", "image"):
        close(mine[pooling], expected[pooling])
    close(mine["both"], np.concatenate([expected["text"], expected["image"]], 1))
    assert not mine["image"][TEXT].any()


def linears(model, component):
    named = model.named_modules()
    names = [n for n, m in named if isinstance(m, LINEARS) and component_of(f"{n}.x") == component]
    return [n for n in names if n not in tied_linears(model)]


def held(t, model, which):
    """Hold batched gradients to autograd, one row at a time, over the very parameters that are tapped."""
    tap = GradientTap(model, which, ProjectionConfig(kind="none"))
    with Wide():
        mine = tap(t.batch())
    wanted = list(parameters_of(tap.modules).values())
    for p in wanted:
        p.requires_grad_(True)
    for i, record in enumerate(RECORDS):
        with Wide():
            loss = model(**t.theirs(record, model)).loss
            grads = torch.autograd.grad(loss, wanted, allow_unused=True) if loss.requires_grad else [None] * len(wanted)
        expected = np.concatenate([np.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(grads, wanted)])
        if expected.any():
            close(mine[i], expected)
        else:
            assert not record.images
            assert not mine[i].any()
    return mine


@pytest.mark.works("gradients of connector, vision tower and language model")
@each_family
@pytest.mark.parametrize("part", ["projector", "vision_tower", "language_model"])
def test_gradients_are_those_of_one_row_at_a_time(tiny_of, name, part):
    t = tiny_of(name)
    names = linears(t.model, part)
    # of deep towers and decoders: first, middle and last
    some = sorted({names[0], names[len(names) // 2], names[-1]})
    which = "projector" if part == "projector" else "re:" + "|".join(f"^{n}$" for n in some)
    held(t, t.copy("float64"), which)


@pytest.mark.refuses(
    "gradients of a head whose weight is the embedding too (tied): a part of its gradient is no Linear's"
)
@each_family
def test_a_head_that_is_the_embedding_too_is_refused(tiny_of, name):
    t = tiny_of(name)
    head = t.family.components.head[0]
    if t.model.get_submodule(head).weight is not t.model.get_input_embeddings().weight:
        assert list(pick_linears(t.model, f"re:^{head}$")) == [head]
        return
    for pick in (read_shape(t.path).chosen, partial(pick_linears, t.model)):
        with pytest.raises(InputError, match="the words' embedding too"):
            pick(f"re:^{head}$")


@pytest.mark.works("gradients of LoRA")
@each_family
def test_gradients_of_lora_are_those_of_one_row_at_a_time(tiny_of, name):
    t = tiny_of(name)
    torch.manual_seed(0)
    model = add_lora(t.copy("float64"), LoraSpec(r=2, alpha=4, dropout=0.1, init="gaussian")).double()
    for n, p in model.named_parameters():  # a zero B would hide a wrong dA
        if ".lora_B." in n:
            torch.nn.init.normal_(p, std=0.05)
    mine = held(t, model.eval(), "lora")
    assert np.abs(mine[TEXT]).max() > 0


def after_the_picture(t, record):
    """Places of a row's image tokens, and where the text behind the last of them begins."""
    ids_T = t.rows([record])[0].input_ids
    image = np.flatnonzero(t.family.image_mask(t.model.config, torch.from_numpy(ids_T)[None])[0])
    return image, int(image[-1]) + 1


def values_of(block):
    """The four largest singular values; zeros where there are fewer."""
    values = torch.linalg.svdvals(block)[:4]
    return np.pad(values, (0, 4 - len(values)))


@pytest.mark.works("trajectories: flat")
@each_family
@torch.no_grad()
def test_flat_trajectories_are_the_formula(tiny_of, name):
    t, rows = tiny_of(name), []
    kept = []
    layers = t.family.decoder(t.model).layers
    hooks = [
        getattr(layer.self_attn, p).register_forward_hook(lambda m, a, out: kept.append(out[0]))
        for layer in layers
        for p in ("q_proj", "k_proj")
    ]
    with Wide():
        for record in RECORDS:
            kept.clear()
            t.model(**t.theirs(record))
            if not record.images:
                rows.append(np.zeros(4))
                continue
            image, first = after_the_picture(t, record)
            total = 0
            for layer, query, key in zip(layers, kept[::2], kept[1::2], strict=True):
                heads = key.unflatten(-1, (-1, layer.self_attn.head_dim))
                groups = query.shape[1] // key.shape[1]
                key = torch.stack([heads[:, n // groups] for n in range(groups * heads.shape[1])], 1).flatten(1)
                total += torch.softmax(query[first:] @ key.T / query.shape[1] ** 0.5, -1)[:, image]
            rows.append(values_of(total))
        for hook in hooks:
            hook.remove()
        close(AttentionTap(t.model, 4, "flat")(t.batch()), np.stack(rows))


@pytest.mark.works("trajectories: heads")
@each_family
@torch.no_grad()
def test_trajectories_by_heads_are_the_attention_that_eager_gives(tiny_of, name):
    t, rows = tiny_of(name), []
    eager = load(t.path, "float64", attn="eager").model
    with Wide():
        for record in RECORDS:
            if not record.images:
                rows.append(np.zeros(4))
                continue
            image, first = after_the_picture(t, record)
            layers = eager(**t.theirs(record), output_attentions=True).attentions
            assert len(layers) == len(t.family.decoder(t.model).layers)
            rows.append(values_of(sum(a[0].mean(0) for a in layers)[first:, image]))
        close(AttentionTap(t.model, 4, "heads")(t.batch()), np.stack(rows))
