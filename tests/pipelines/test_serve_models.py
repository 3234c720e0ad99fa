"""What is served of trained folders is what they say in this process; and a model that has broken ends its server."""

import base64
import io

import folders
import pytest
import torch
from PIL import Image
from serving import hosted
from vinnow.evaluate.generator import Turn
from vinnow.evaluate.sampling import Sampling
from vinnow.evaluate.talk import open_generator
from vinnow.pipelines.serve.config import ServeConfig
from vinnow.pipelines.serve.engine import Engine
from vinnow.store.errors import InputError

LONG = {"max_new_tokens": 64, "max_wait_ms": 200}


def body(text, url=None, tokens=12):
    parts = [{"type": "text", "text": text}] + ([{"type": "image_url", "image_url": {"url": url}}] if url else [])
    message = {"role": "user", "content": parts}
    return {"model": "twin", "messages": [message], "temperature": 0, "max_tokens": tokens}


@pytest.mark.parametrize("kind", ["adapter", "mores"])
def test_a_trained_folder_is_served_as_it_answers_here(tiny_model, tmp_path, kind):
    folder = getattr(folders, kind)(tiny_model, str(tmp_path / kind))
    sink, image = io.BytesIO(), Image.new("RGB", (50, 30), "red")
    image.save(sink, "PNG")
    url = "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()
    said = []
    for path in (folder, tiny_model):
        generator = open_generator(ServeConfig.fitting(path, {}))
        prompt = generator.encode([Turn("human", "<image>\nwhat is it?")], [image])
        said.append(generator.reply([prompt], [Sampling(max_new_tokens=12)])[0].text)
    assert said[0] != said[1]
    with hosted(ServeConfig.fitting(folder, LONG)) as server:
        answer = server.post(body("what is it?", url)).json()
    assert answer["choices"][0]["message"]["content"] == said[0]


def breaking(server, fails):
    """Have the model raise where `fails` says so of a batch's token ids."""

    def hook(_module, _args, kwargs):
        ids = kwargs.get("input_ids")
        if ids is not None and fails(ids):
            raise RuntimeError("CUDA error: device-side assert triggered")

    server.generator.model.register_forward_pre_hook(hook, with_kwargs=True)


def test_a_row_that_cannot_be_answered_fails_alone(tiny_model):
    with hosted(ServeConfig.fitting(tiny_model, LONG)) as server:
        alone = server.post(body("what?")).json()
        poison = server.generator.encode([Turn("human", "purple")]).input_ids
        length = len(poison)
        assert length != len(server.generator.encode([Turn("human", "what?")]).input_ids)
        mark = torch.as_tensor(poison)
        breaking(server, lambda ids: ids.shape[1] >= length and (ids[:, -length:] == mark).all(-1).any())
        replies = server.together([body("what?"), body("purple"), body("what?")])
        assert [r.status_code for r in replies] == [200, 500, 200]
        assert replies[1].json()["error"]["code"] == "generation_failed"
        assert replies[0].json()["choices"] == alone["choices"]
        health = server.health
        assert (health["status"], health["failed"], health["errors"], health["answered"]) == ("ok", 1, 1, 3)
        assert not server.died


def test_a_model_that_answers_nothing_any_more_ends_its_server(tiny_model, capfd):
    """As after a device-side assert: one call fails, and then each one does."""
    with hosted(ServeConfig.fitting(tiny_model, LONG)) as server:
        assert server.post(body("what?")).status_code == 200
        breaking(server, lambda ids: True)
        replies = server.together([body("what?"), body("red?")])
        assert server.died
        # the rest of the server's end: see `run._drain`
        assert {r.status_code for r in replies} == {503}
        assert server.health["errors"] == 2
    assert "cannot answer any more: RuntimeError: CUDA error: device-side assert" in capfd.readouterr().err


def test_a_model_of_nan_is_not_served_at_all(tiny_model):
    config = ServeConfig.fitting(tiny_model, {})
    generator = open_generator(config)
    with torch.no_grad():
        generator.family.head(generator.model).weight.fill_(float("nan"))
    with pytest.raises(InputError, match=r"answers nothing: .*NaN"):
        Engine([generator], config, lambda: None)
