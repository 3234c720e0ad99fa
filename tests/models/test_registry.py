"""Finding families: a file of one's own is one, and files that do not fit, or are called alike, are refused by name."""

import pytest
from vinnow.models import registry
from vinnow.models.components import component_of
from vinnow.models.load import load
from vinnow.store.errors import InputError

OWN = """
from vinnow.models.protocol import Components
from vinnow.models.registry import HERE
from vinnow.models.family.llava import Llava


class Own(Llava):
    name = "own"
    kinds = ("{kind}",)
    processors = ("OwnProcessor",)
    components = Components(
        ("model.{tower}",), ("model.{tower}.merger", "model.image_mark"), ("model.words",), ("lm_head",)
    )


FAMILY = Own
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    def write(text, **words):
        words = {"kind": "my_vlm", "tower": "looker"} | words
        for name, value in words.items():
            text = text.replace(f"{{{name}}}", value)
        (tmp_path / "own.py").write_text(text)
        registry._families.cache_clear()
        registry._components.cache_clear()
        monkeypatch.setenv(registry.VARIABLE, str(tmp_path))

    yield write
    registry._families.cache_clear()
    registry._components.cache_clear()


def test_a_file_of_one_s_own_is_a_family(own, tiny_model):
    with pytest.raises(registry.UnknownFamilyError):
        registry.find("my_vlm")
    own(OWN)
    family = registry.find("my_vlm")
    assert family.name == "own"
    assert registry.family_of_processor(type("OwnProcessor", (), {})()) is family
    assert component_of("model.looker.layer.weight") == "vision_tower"
    # the connector lies inside the tower, the longer name wins; wrappers in front do not matter
    assert component_of("base_model.model.model.looker.merger.fc.weight") == "projector"
    assert component_of("model.words.layers.0.weight") == "language_model"
    # a parameter of the model itself, which no module holds; another one's name may begin as its does
    assert {component_of(f"{front}model.image_mark") for front in ("", "base_model.model.")} == {"projector"}
    assert registry.plain_name("base_model.model.model.image_mark") == "image_mark"
    with pytest.raises(InputError, match="belongs to no known part"):
        component_of("model.image_marks")
    assert registry.family_of(load(tiny_model).model).name == "llava"
    with pytest.raises(InputError, match="belongs to no known part"):
        component_of("model.lookers.layer.weight")


@pytest.mark.parametrize(
    ("words", "text", "message"),
    [
        ({"kind": "llava"}, OWN, "two families hold models of type 'llava': llava and own"),
        ({}, OWN.replace("FAMILY = Own", ""), "ends in `FAMILY = ItsClass`"),
        ({}, OWN.replace('name = "own"', 'name = "llava"'), "two families are called 'llava'"),
        (
            {},
            "class Empty:\n    name = 'empty'\n\n\nFAMILY = Empty\n",
            "Empty lacks kinds, label, .*models/protocol.py",
        ),
    ],
    ids=["type", "none", "name", "lacking"],
)
def test_what_is_no_family_is_refused_by_name(own, words, text, message):
    own(text, **words)
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        registry.families()


def test_one_name_of_a_module_is_one_part_in_all_families(own):
    own(OWN.replace('("model.words",)', '("model.vision_tower",)'))
    with pytest.raises(
        InputError, match=r"own: model\.vision_tower is its language_model, another family's vision_tower"
    ):
        component_of("model.vision_tower.weight")
