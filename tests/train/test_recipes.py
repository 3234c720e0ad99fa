"""Every recipe is a TrainRecipe with the published numbers (spec: LLaVA §5, MoReS §1.7, XMAS §1)."""

from pathlib import Path

import pytest
from vinnow.models.specs import LoraSpec, MoresSpec
from vinnow.pipelines.runs.config import apply_set, read_yaml
from vinnow.store.errors import InputError
from vinnow.train import recipe as module
from vinnow.train.recipe import TrainRecipe

BOTH, FIRST = ["projector", "language_model"], ["projector"]
# parts, lr, global batch, per device, epochs, ZeRO, picture, grouped
NUMBERS = {
    "llava15-pretrain": (FIRST, 1e-3, 256, 32, 1, 2, "square", False),
    "llava15-finetune": (BOTH, 2e-5, 128, 16, 1, 3, "pad", True),
    "llava15-lora": (["projector", "lora"], 2e-4, 128, 16, 1, 3, "pad", True),
    "llava15-qlora": (["projector", "lora"], 2e-5, 128, 16, 1, 2, "pad", True),
    "llava-mistral-scienceqa-projector": (FIRST, 1e-3, 64, 16, 1, 2, "square", False),
    "llava-mistral-scienceqa": (BOTH, 2e-5, 32, 8, 15, 3, "pad", True),
    "llava-v1-scienceqa": (BOTH, 2e-5, 128, 16, 12, 2, "square", False),
    "xmas-proxy": (BOTH, 2e-5, 32, 8, 1, 3, "square", True),
    "mores-2nd-stage": (["projector", "mores"], 2e-4, 128, 8, 1, 2, "square", False),
    "connector-only": (FIRST, 2e-4, 128, 8, 1, 2, "square", False),
}


def recipe(name, *sets):
    values = read_yaml(name, "train")
    for entry in sets:
        apply_set(values, entry)
    return TrainRecipe.parse(values)


# those whose scripts name TinyLLaVA's phi template
PHI = ("xmas-proxy", "mores-2nd-stage", "connector-only")


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_the_published_ones(name):
    numbers = recipe(name)
    got = (
        numbers.lr,
        numbers.global_batch,
        numbers.micro_batch,
        numbers.epochs,
        numbers.zero_stage,
        numbers.image_mode,
    )
    assert (numbers.parts, *got, numbers.group_by_modality) == NUMBERS[name]
    rest = (numbers.weight_decay, numbers.warmup_ratio, numbers.schedule, numbers.max_len, numbers.grad_clip)
    assert rest == (0, 0.03, "cosine", 2048, 0)
    assert numbers.loss_mean == "micro_batch"
    assert (numbers.precision, numbers.gradient_checkpointing, numbers.use_gpu) == ("bfloat16", True, True)
    own = {"llava-mistral-scienceqa": "mistral_instruct"} | dict.fromkeys(PHI, "phi")
    assert numbers.template == ("plain" if numbers.lr == 1e-3 else own.get(name, "v1"))


def test_every_file_is_tested():
    assert {p.stem for p in (Path(module.__file__).parent / "recipes").glob("*.yaml")} == set(NUMBERS)


def test_what_is_particular_to_one():
    assert recipe("llava15-lora").lora == LoraSpec(r=128, alpha=256, dropout=0.05)
    assert recipe("llava15-lora").projector_lr == 2e-5
    qlora = recipe("llava15-qlora")
    assert (qlora.lora, qlora.quantise) == (LoraSpec(r=64, alpha=16), "nf4")
    assert recipe("xmas-proxy").planned_checkpoints(20_791) == list(range(200, 20_791, 200))
    assert recipe("xmas-proxy").planned_steps(665_298) == 20_791
    mores, alone = recipe("mores-2nd-stage"), recipe("connector-only")
    assert mores.mores == MoresSpec(rank=4, positions="f4+l5", dropout=0.05)
    assert mores.accumulation == 4
    # the baseline differs in the steering alone
    assert mores.model_copy(update={"mores": None, "parts": ["projector"]}) == alone


def test_a_recipe_can_be_changed_and_a_typo_is_named():
    assert recipe("llava15-lora", "workers=4", "lora.r=64").lora.r == 64
    with pytest.raises(InputError, match="did you mean 'llava15-lora'"):
        recipe("llava15-lore")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["peft={method: ia3}"], "not both"),
        (["zero_stage=3"], "cannot shard weights in 4 bits"),
        (["parts=[projector]", "lora=null"], "trained by adapters"),
    ],
)
def test_four_bits_and_adapters_that_do_not_go_together(sets, words):
    with pytest.raises(InputError, match=words):
        recipe("llava15-qlora", *sets)
