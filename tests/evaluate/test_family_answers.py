"""Every family's tiny model answers as its own `generate` does, and what its answers attended to is what eager says."""

import numpy as np
import pytest
import torch
from tinies import RECORDS, TEXT, Wide, each_family
from vinnow.evaluate.generator import Generator
from vinnow.evaluate.imbalance import generated
from vinnow.evaluate.sampling import Sampling
from vinnow.models.load import load
from vinnow.models.mores import add_mores
from vinnow.models.specs import MoresSpec
from vinnow.models.taps.modality import ModalityTap
from vinnow.pool.collate import collate
from vinnow.pool.inputs import InputConfig

NEW = 5


def sharp(t, **options):
    """A tiny model whose decoder says different things of different prompts: its weights six times as large."""
    loaded = load(t.path, "float64", **options)
    with torch.no_grad():
        for p in t.family.decoder(loaded.model).layers.parameters():
            if p.ndim > 1:
                p *= 6
    return loaded


def generator_of(t, mores=False):
    loaded = sharp(t)
    if mores:
        torch.manual_seed(0)
        add_mores(loaded.model, MoresSpec.parse({"rank": 3, "positions": "f2+l2", "dropout": 0.0}))
        with torch.no_grad():
            for p in loaded.model.mores.parameters():
                p.copy_(torch.randn_like(p))
    return Generator(loaded, InputConfig(template=t.template, max_len=400))


def alone(t, model, prompt):
    """One prompt as Hugging Face's own `generate` takes it."""
    batch = t.encoder.finish(collate([prompt], t.pad, "left"))
    batch["media"] = {n: v.to(model.dtype) if v.is_floating_point() else v for n, v in batch["media"].items()}
    return t.family.generating(model, batch)


@pytest.mark.works("answers: those of generate")
@each_family
@pytest.mark.parametrize("mores", [False, True], ids=["plain", "MoReS"])
def test_answers_in_company_are_those_of_generate_alone(tiny_of, name, mores):
    t = tiny_of(name)
    generator, prompts = generator_of(t, mores), t.rows(prompt=True)
    replies = generator.reply(prompts, [Sampling(max_new_tokens=NEW)] * len(prompts))
    for prompt, reply in zip(prompts, replies, strict=True):
        asked = alone(t, generator.model, prompt)
        tokens = generator.model.generate(**asked, max_new_tokens=NEW, do_sample=False)[0, len(prompt.input_ids) :]
        assert list(reply.tokens) == tokens.tolist()
    assert len({reply.tokens for reply in replies}) > 1


@pytest.mark.works("modality imbalance")
@each_family
@torch.no_grad()
def test_attention_of_answers_is_what_eager_gives(tiny_of, name):
    t = tiny_of(name)
    generator, eager = generator_of(t), sharp(t, attn="eager").model
    eager.generation_config = generator.model.generation_config
    shown = [r for i, r in enumerate(RECORDS) if i != TEXT and r.images]
    prompts = t.rows(shown, prompt=True)
    inputs = generator.inputs(prompts)
    image_BT = t.family.image_mask(t.model.config, inputs["input_ids"])
    text_BT = inputs["attention_mask"].bool() & ~image_BT
    tap = ModalityTap(generator.model)
    with Wide():
        with tap.watch(image_BT, text_BT):
            new_BS = generator.generate(inputs, NEW)
        counts_B = generated(new_BS, generator.ends)
        shares = torch.stack(tap.shares(counts_B), -1)
        for i, prompt in enumerate(prompts):
            asked, count = alone(t, eager, prompt), int(counts_B[i])
            ids_T = asked["input_ids"][0]
            image_T = t.family.image_mask(eager.config, asked["input_ids"])[0]
            out = eager.generate(
                **asked, max_new_tokens=NEW, do_sample=False, output_attentions=True, return_dict_in_generate=True
            )
            assert out.sequences[0, len(ids_T) :].tolist()[:count] == new_BS[i, :count].tolist()
            sums = np.zeros((len(out.attentions[0]), 2))
            for step, layers in enumerate(out.attentions[:count]):
                for n, weights in enumerate(layers):
                    last = weights[0, :, -1].mean(0)
                    padded = torch.zeros(len(ids_T) + step).double()
                    padded[-len(last) :] = last  # a sliding cache has only the last keys
                    sums[n] += [float(padded[: len(ids_T)][image_T].sum()), float(padded[: len(ids_T)][~image_T].sum())]
            np.testing.assert_allclose(shares[i], sums / count, rtol=1e-9)
