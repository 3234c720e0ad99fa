"""The laws of a price, for every family of models: a new file in `models/family/` is adopted unnamed."""

import pytest
from vinnow.actors import registry as kinds
from vinnow.actors.config import FeatureConfig
from vinnow.models.encoding import default_template
from vinnow.models.registry import families
from vinnow.pipelines.runs.prices import Prices
from vinnow.pipelines.runs.samples import Sample
from vinnow.pool.records import Record
from vinnow.train.config import TrainConfig

TRAININGS = {
    "projector": {"parts": ["projector"]},
    "full": {"parts": ["projector", "language_model"]},
    "everything": {"parts": ["vision_tower", "projector", "language_model"]},
    "checkpointed": {"parts": ["projector", "language_model"], "gradient_checkpointing": True},
    "lora": {"parts": ["projector", "lora"], "lora": {"r": 4}},
    "ia3": {"parts": ["lora"], "peft": {"method": "ia3"}},
    "dora": {"parts": ["lora"], "peft": {"method": "dora", "r": 4}},
    "mores": {"parts": ["projector", "mores"], "mores": {"rank": 2}},
}
NAMES = sorted(families())


def sample(words, rows=10):
    said = [("human", "<image>\nwhat is it?"), ("gpt", "a red square " * words)]
    record = Record(0, "s", "t", ("a.png",), [{"from": who, "value": text} for who, text in said])
    return Sample(rows, [record], "the pool")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    texts = ["what is it? a red square USER: ASSISTANT:", "user assistant system"] * 20
    return {name: family.tiny(str(tmp_path_factory.mktemp(name) / "m"), texts) for name, family in families().items()}


def every_price(path, one):
    """Prices of every training and of every kind of feature at a proxy with LoRA, by name."""
    text = {"template": default_template(path), "max_len": 2048}
    prices = Prices.of_model(path, {"pool": one, "target": one})
    trainings = {n: TrainConfig(model="-", pool="-", **text, **values) for n, values in TRAININGS.items()}
    priced = {name: prices.training(config, "pool", one.rows) for name, config in trainings.items()}
    for kind in kinds.names():
        config = FeatureConfig.parse({"kind": kind} | text)
        priced[kind] = prices.feature(config, "pool", 1, None)
        priced[f"{kind} of lora"] = prices.feature(config, "pool", 1, trainings["lora"])
    return priced


@pytest.mark.parametrize("name", NAMES)
def test_everything_has_a_price_that_grows_with_rows_and_tokens(paths, name):
    usual, more, longer = (every_price(paths[name], one) for one in (sample(20), sample(20, 30), sample(60)))
    assert len(usual) == len(TRAININGS) + 2 * len(kinds.names())
    for what, price in usual.items():
        assert price.tflop > 0, what
        assert price.memory > 0, what
        assert all(flop >= 0 for flop in price.row.values()), what
        assert more[what].row == price.row
        assert more[what].tflop == pytest.approx(3 * price.tflop), what
        assert longer[what].tokens > price.tokens
        assert longer[what].tflop > price.tflop, what
    assert usual["full"].tflop < usual["everything"].tflop
    assert usual["projector"].tflop < usual["full"].tflop < usual["checkpointed"].tflop
    assert "lora fwd" in usual["lora"].row
    assert "lora fwd" in usual["loss of lora"].row
