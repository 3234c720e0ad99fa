"""Steps on a kept cache against Hugging Face's `generate`, which computes the same without either."""

import pytest
import torch
from vinnow.evaluate.generator import Generator, Turn
from vinnow.evaluate.sampling import Sampling
from vinnow.evaluate.stepper import Stepper, can_step
from vinnow.models import registry
from vinnow.models.components import add_lora
from vinnow.models.load import load
from vinnow.models.mores import add_mores
from vinnow.models.specs import LoraSpec, MoresSpec
from vinnow.pool.images import load_image
from vinnow.pool.inputs import InputConfig
from vinnow.pool.reader import Pool

GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def model_of(loaded, kind):
    """The model as it is, with adapters, or steered; what was added does something."""
    torch.manual_seed(0)
    if kind == "mores":
        added = add_mores(loaded.model, MoresSpec(rank=3)).named_parameters()
    elif kind == "lora":
        loaded.model = add_lora(loaded.model, LoraSpec(r=4, alpha=8, init="zero_b"))
        added = ((n, p) for n, p in loaded.model.named_parameters() if "lora_B" in n)
    else:
        added = ()
    with torch.no_grad():
        for _, parameter in added:
            parameter.copy_(torch.randn_like(parameter))
    loaded.model.eval()
    return loaded


def both(tiny_model, kind, device, dtype="float64"):
    """The same model searched by Hugging Face and by steps."""
    loaded = model_of(load(tiny_model, dtype, device), kind)
    plain, stepped = Generator(loaded, InputConfig()), Generator(loaded, InputConfig())
    assert can_step(loaded.model, stepped.family)
    plain.stepper = None
    stepped.stepper = Stepper(loaded.model, stepped.family, stepped.pad_id, stepped.ends)
    return plain, stepped


def prompts_of(generator, tiny_pool, count):
    pool = Pool(tiny_pool)
    records = pool.take(pool.ids()[:count])
    assert 0 < sum(bool(r.images) for r in records) < count
    return [
        generator.encode(
            [Turn("human", r.conversations[0]["value"] + " and so on" * (i % 4))],
            [load_image(pool.image_root, image) for image in r.images],
        )
        for i, r in enumerate(records)
    ]


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("kind", ["plain", "lora", "mores"])
def test_steps_give_what_generate_gives(tiny_model, tiny_pool, kind, device):
    plain, stepped = both(tiny_model, kind, device)
    prompts = prompts_of(plain, tiny_pool, 11)
    # other numbers of rows and lengths in between, and the first ones again: the cache grows, recordings are used anew
    for rows, most in ((11, 12), (3, 1), (5, 30), (11, 200), (3, 1), (11, 12)):
        sampling = [Sampling(max_new_tokens=most)] * rows
        assert stepped.reply(prompts[:rows], sampling) == plain.reply(prompts[:rows], sampling), (rows, most)
    # what was kept is let go of: the next cache is as large as the next batch wants it
    held = stepped.stepper.cache.length
    stepped.stepper.forget()
    sampling = [Sampling(max_new_tokens=12)] * 3
    assert stepped.reply(prompts[:3], sampling) == plain.reply(prompts[:3], sampling)
    assert stepped.stepper.cache.length < held


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_rows_end_on_their_own(tiny_model, tiny_pool, device):
    plain, stepped = both(tiny_model, "plain", device)
    prompts = prompts_of(plain, tiny_pool, 6)
    long = plain.reply(prompts, [Sampling(max_new_tokens=20)] * 6)
    stop = long[0].text[3:5]
    samplings = [
        Sampling(max_new_tokens=20, stop=(stop,)),
        Sampling(max_new_tokens=2),
        Sampling(max_new_tokens=20, temperature=1, seed=4),
        *[Sampling(max_new_tokens=20)] * 3,
    ]
    assert stepped.reply(prompts, samplings) == plain.reply(prompts, samplings)
    heard = {}
    given_up = [
        g.reply(prompts, samplings, lambda row, token, g=g: len(heard.setdefault((id(g), row), [])) or row != 3)
        for g in (plain, stepped)
    ]
    assert given_up[0] == given_up[1]
    assert given_up[1][3].finish == "given_up"
    mark = long[4].tokens[9]
    for generator in (plain, stepped):
        generator.ends = [mark]
        generator.model.generation_config.eos_token_id = [mark]
    stepped.stepper = Stepper(stepped.model, stepped.family, stepped.pad_id, [mark])
    ended = stepped.reply(prompts, [Sampling(max_new_tokens=40)] * 6)
    assert ended == plain.reply(prompts, [Sampling(max_new_tokens=40)] * 6)
    assert {r.finish for r in ended} >= {"stop"}


def test_prompts_go_through_the_model_some_rows_at_a_time(tiny_model, tiny_pool, monkeypatch):
    plain, stepped = both(tiny_model, "plain", "cpu")
    prompts = prompts_of(plain, tiny_pool, 7)
    monkeypatch.setattr("vinnow.evaluate.stepper.PREFILL", 2 * max(len(p.input_ids) for p in prompts))
    sampling = [Sampling(max_new_tokens=5)] * 7
    assert stepped.reply(prompts, sampling) == plain.reply(prompts, sampling)


def test_what_cannot_be_stepped_is_not(tmp_path, tiny_model):
    assert not registry.families()["qwen2_5_vl"].counted
    model = load(tiny_model).model
    family = registry.family_of(model)
    assert can_step(model, family)
    model.config.text_config.sliding_window = 16
    assert not can_step(model, family)
    model.config.text_config.sliding_window = None
    model.config.text_config.layer_types = ["full_attention", "sliding_attention"]
    assert not can_step(model, family)
