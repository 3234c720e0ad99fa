"""Types that were looked at and do not fit are refused by name, with what they lack, wherever a model is given."""

import json
import subprocess

import pytest
import transformers
from commands import vinnow_line
from pictures import make_records, write_records
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from typer.testing import CliRunner
from vinnow.models import registry
from vinnow.models.check import check_model
from vinnow.models.missing import MISSING
from vinnow.models.shape import UnknownShapeError, shape_of
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.runs.template import Start, text_of
from vinnow.store.errors import InputError

SAID = {
    "mllama": "cross-attention",
    "qwen3_5": "no attention matrix",
    "gemma3n": "inputs of their own for each token",
    "gemma4": "inputs of their own for each token",
    "paligemma": "whole prompt attends both ways",
    "minicpmv": "code in its own folder",
    "qwen3_vl_moe": "experts' weights",
    "llama4": "experts' weights",
    "video_llava": "video or sound",
    "qwen2_5_omni_thinker": "video or sound",
    "mistral3": "of any size",
    "cohere2_vision": "torchvision",
}


def folder_of(kind, tmp_path):
    settings = {"model_type": kind, "architectures": ["ItForCausalLM"], "text_config": {}, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return str(tmp_path)


@pytest.mark.parametrize("kind", sorted(MISSING))
def test_what_a_type_lacks_is_said_with_those_that_work(kind, tmp_path):
    assert kind not in registry.kinds(), "it works now: take it off the table"
    for use in (lambda: registry.find(kind), lambda: check_model(folder_of(kind, tmp_path))):
        with pytest.raises(InputError) as error:
            use()
        said = str(error.value)
        assert repr(kind) in said
        assert MISSING[kind] in said
        assert SAID.get(kind, "") in said
        assert "Types that work: " in said
        assert "llava, " in said.split("Types that work: ")[1]
        assert "\n" not in said


def test_the_types_that_a_user_may_bring_are_there():
    assert set(SAID) <= set(MISSING)
    foreign = {"minicpmv", "minicpmo", "internvl_chat", "phi3_v", "molmo", "ovis", "kimi_vl", "deepseek_vl_v2"}
    foreign |= {"qwen2_5_omni", "qwen3_omni_moe"}
    if tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 23):  # an older one knows fewer
        assert set(MISSING) - foreign <= set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


@pytest.mark.refuses("any other `model_type`, whatever transformers knows: named with the nearest that is known")
def test_a_type_that_nobody_looked_at_is_no_family_whatever_transformers_knows(tmp_path):
    unseen = next(
        k for k in sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES) if k not in MISSING and k not in registry.kinds()
    )
    with pytest.raises(registry.UnknownFamilyError, match=rf"'{unseen}' \(transformers has it, .*Known: .*llava"):
        registry.find(unseen)
    with pytest.raises(InputError, match="transformers has it"):
        check_model(folder_of(unseen, tmp_path))
    with pytest.raises(registry.UnknownFamilyError, match=r"'idefics4'; did you mean 'idefics3'\?"):
        registry.find("idefics4")


def test_a_price_is_refused_in_the_same_words():
    from transformers import MllamaConfig

    with pytest.raises(UnknownShapeError, match=r"no formulas for 'mllama': .*cross-attention"):
        shape_of(MllamaConfig())


@pytest.mark.parametrize("kind", ["mllama", "qwen3_5", "fast_vlm"])
def test_commands_say_it_in_one_line(kind, tmp_path):
    records, pictures = make_records(3, seed=5)
    write_records(tmp_path / "data", records, pictures)
    start = Start(str(tmp_path / "data" / "records.json"), images=str(tmp_path / "data" / "images"))
    (tmp_path / "run.yaml").write_text(text_of(start, "run.yaml"))
    folder = folder_of(kind, tmp_path)
    for words in (["plan", "run.yaml", "--set", f"model.path={folder}", "--gpus", "0"], ["chat", folder]):
        words = [str(tmp_path / w) if w == "run.yaml" else w for w in words]
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, InputError), result.output
        assert "\n" not in str(result.exception)
        assert repr(kind) in str(result.exception)
        assert MISSING.get(kind, "nobody has held it") in str(result.exception)
    done = subprocess.run(vinnow_line("chat", folder), capture_output=True, text=True, input="", cwd="/")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
