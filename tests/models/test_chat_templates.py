"""Which chat template of a folder is its processor's: the oracle is Hugging Face's `ProcessorMixin`, layout by layout."""

import json
import shutil
from pathlib import Path

import pytest
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from vinnow.models import registry
from vinnow.models.encoding import make_encoder
from vinnow.models.load import load_processor
from vinnow.store.errors import InputError

TEXT = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
CONFIG, HELD, JINJA, OTHER = (
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
)
LISTED = [{"name": "default", "template": "listed"}, {"name": "tool_use", "template": "tools"}]
NAMED = {"default": "jinja", "tool_use": "other"}
# files with chat templates, and what they mean
LAYOUTS = [
    ({}, TEXT),
    ({HELD: "held"}, "held"),
    ({JINJA: "jinja"}, "jinja"),
    ({CONFIG: "config"}, "config"),
    ({CONFIG: "config", HELD: "held", JINJA: "jinja"}, "config"),
    ({CONFIG: "config", JINJA: "jinja", OTHER: "other"}, "config"),
    ({HELD: "held", JINJA: "jinja"}, "held"),
    ({JINJA: "jinja", OTHER: "other"}, NAMED),
    ({CONFIG: {"default": "config", "short": "s"}, JINJA: "jinja"}, {"default": "config", "short": "s"}),
    ({HELD: LISTED}, {"default": "listed", "tool_use": "tools"}),
    ({CONFIG: LISTED, HELD: "held"}, {"default": "listed", "tool_use": "tools"}),
]


@pytest.fixture(scope="module", params=["idefics3", "llava"])
def bare(request, tmp_path_factory) -> Path:
    """Tiny models whose only chat template is their tokenizer's, and knows no pictures."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    registry.families()[request.param].tiny(str(folder), ["what is in the image?", "a red square"] * 20)
    (folder / JINJA).unlink(missing_ok=True)
    change(folder / "tokenizer_config.json", TEXT)
    return folder


def change(file: Path, template) -> None:
    fields = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(fields | {"chat_template": template}))


def laid(bare: Path, folder: Path, files) -> Path:
    shutil.copytree(bare, folder)
    for name, template in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if name.endswith(".json"):
            change(folder / name, template)
        else:
            (folder / name).write_text(template)
    return folder


def theirs(folder: Path):
    """What Hugging Face's processor takes; a list is one of templates by name, as in their tokenizers."""
    taken = Idefics3Processor.get_processor_dict(folder, local_files_only=True)[0].get("chat_template")
    return {one["name"]: one["template"] for one in taken} if isinstance(taken, list) else taken


@pytest.mark.parametrize(("files", "meant"), LAYOUTS, ids=["+".join(files) for files, _ in LAYOUTS])
def test_the_processor_s_own_template_wins_and_is_what_a_saved_folder_says(bare, tmp_path, files, meant):
    folder = laid(bare, tmp_path / "model", files)
    processor = load_processor(str(folder))
    assert processor.tokenizer.chat_template == meant
    assert theirs(folder) == (meant if files else None)
    (tmp_path / "saved").mkdir()
    processor.save_pretrained(str(tmp_path / "saved"))
    shutil.copy(folder / "config.json", tmp_path / "saved")
    assert load_processor(str(tmp_path / "saved")).tokenizer.chat_template == meant
    assert theirs(tmp_path / "saved") == meant


def test_hugging_face_s_processor_writes_the_same(tmp_path):
    path = registry.families()["idefics3"].tiny(str(tmp_path / "model"), ["a red square"] * 20)
    own = (Path(path) / JINJA).read_text()
    (Path(path) / JINJA).unlink()
    change(Path(path) / "tokenizer_config.json", TEXT)
    change(Path(path) / HELD, own)
    mine = load_processor(path)
    processor = Idefics3Processor(
        mine.image_processor, mine.tokenizer, 4, Idefics3Processor.get_processor_dict(path)[0]["chat_template"]
    )
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    assert mine.tokenizer.apply_chat_template(turns, tokenize=False) == processor.apply_chat_template(turns)
    # and a picture has its place: the tokenizer's own would have none
    row = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a red square"}]
    kinds = [s.kind for s in make_encoder(mine, "own").template.segments(row, True)]
    assert kinds.count("image") == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({HELD: "held", OTHER: "other"}, "Hugging Face takes no such folder"),
        ({HELD: 3}, "neither a text nor a list"),
        ({CONFIG: [{"name": "default"}]}, "neither a text nor a list"),
        ({CONFIG: ["a"]}, "neither a text nor a list"),
    ],
)
def test_what_is_no_template_is_refused(bare, tmp_path, files, words):
    with pytest.raises(InputError, match=words):
        load_processor(str(laid(bare, tmp_path / "model", files)))


def test_several_without_a_default_ask_for_one(bare, tmp_path):
    folder = laid(bare, tmp_path / "model", {OTHER: "other"})
    with pytest.raises(InputError, match="default"):
        make_encoder(load_processor(str(folder)), "own")
