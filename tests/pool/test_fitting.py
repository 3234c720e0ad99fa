"""What a model would refuse or cut is known before it is loaded: as many rows as its encoder refuses, by name."""

import json

import pytest
from PIL import Image
from pool.chat_templates import FORMS, OneToken
from typer.testing import CliRunner
from vinnow.models import registry
from vinnow.models.encoding import encoder_of
from vinnow.pipelines.cli.main import app
from vinnow.pool.encode import EncodeError, Encoder
from vinnow.pool.fitting import foresee_fit
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool

SIZES = {"small": (16, 16), "wide": (64, 16), "large": (64, 64)}


def rows() -> list[dict]:
    """Ten of each: short ones, pictures behind long texts, long answers, text alone, several pictures."""
    out = []
    for n in range(10):
        for name in SIZES:
            out.append(_row(["<image>\nwhat is in the image?", "a red square"], f"{name}.png", n))
        out.append(_row(["what is " * 3 * n + "<image>?", "a red square"], "large.png", n))
        out.append(_row(["what is it? <image>", "a red square " * (4 * n + 1)], "small.png", n))
        out.append(_row(["what is " * (3 * n + 1), "a red square"], None, n))
        out.append(_row(["<image> " * 2, "red", "and <image>", "square"], ["small.png", "wide.png", "large.png"], n))
    return out


def _row(values: list[str], image: object, number: int) -> dict:
    turns = [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]
    return {"id": f"{number}", "conversations": turns} | ({"image": image} if image else {})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, size in SIZES.items():
        Image.new("RGB", size, (200, 30, 30)).save(folder / f"{name}.png")
    (folder / "train.json").write_text(json.dumps(rows()))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    texts = ["what is in the image?", "a red square", "user assistant system You are a helpful assistant."] * 20
    return registry.families()["qwen2_5_vl"].tiny(str(tmp_path_factory.mktemp("qwen") / "model"), texts)


@pytest.fixture(scope="module")
def pool(data, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("pool") / "pool")
    ingest(IngestConfig(source=str(data / "train.json"), image_root=str(data)), out)
    return Pool(out)


@pytest.mark.parametrize("max_len", [20, 30, 60, 400])
def test_as_many_rows_are_foreseen_as_the_encoder_refuses(pool, data, model, max_len):
    encoder = encoder_of(model, max_len=max_len)
    refused = 0
    for records in pool.iter_batches(100):
        for record in (r for r in records if r.images):
            try:
                encoder.encode(record, encoder.sizes(str(data), record))
            except EncodeError:
                refused += 1
    told = []
    fit = foresee_fit(pool, encoder, str(data), lambda done, of: told.append((done, of)))
    assert sum(fit.refused.values()) == refused
    assert (fit.rows, fit.unseen) == (pool.rows, 0)
    assert told[-1] == (70, 70)
    assert (refused == 0) == (max_len == 400)
    assert bool(fit.examples) == bool(refused)


def test_rows_that_surely_fit_are_not_tokenised(pool, data, model, monkeypatch):
    encoder, encoded = encoder_of(model, max_len=4000), []
    real = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, *a: encoded.append(a) or real(self, *a))
    assert foresee_fit(pool, encoder, str(data)).refused == {}
    assert len(encoded) == 2  # what a template writes around turns


def test_pictures_that_cannot_be_looked_at_are_counted_apart(pool, model, tmp_path):
    fit = foresee_fit(pool, encoder_of(model), str(tmp_path))
    assert fit.unseen == sum(pool.has_image())
    assert fit.refused == {}


def test_a_picture_of_a_fixed_number_of_tokens_is_not_looked_at(pool):
    form = FORMS["internvl"]
    fit = foresee_fit(pool, Encoder(OneToken(form.tokenizer(), form.mark), "own", 40), "/nowhere")
    assert fit.unseen == 0
    assert fit.refused


def doctor(*arguments: str):
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_the_doctor_counts_what_a_model_would_refuse(data, model, tmp_path):
    source = [str(data / "train.json"), "--images", str(data), "--model", model]
    result = doctor(*source, "--max-len", "60", "--json", str(tmp_path / "found.json"))
    report = json.loads((tmp_path / "found.json").read_text())
    assert result.exit_code == 1
    assert report["refused"] == 0
    assert (
        report["unfit"] == sum(report["warnings"].get(n, 0) for n in ("picture_cut", "untrained", "not_encodable")) > 0
    )
    assert report["warnings"]["picture_cut"] > 0
    assert report["warnings"]["answer_cut"] > 0
    assert "its last image ends at token" in report["examples"]["picture_cut"][0]
    assert doctor(*source).exit_code == 0


def test_the_doctor_names_a_template_that_is_no_model_s(data, model):
    assert "--template is a model's" in str(doctor(str(data / "train.json"), "--template", "own").exception)
    refused = doctor(str(data / "train.json"), "--images", str(data), "--model", model, "--template", "plain")
    assert refused.exit_code == 1  # rows of several rounds
