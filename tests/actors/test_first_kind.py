"""docs/first-kind.md is true when followed: its file is a kind, and its test passes."""

import re
from pathlib import Path

import pytest
from vinnow.actors import registry

PAGE = Path(__file__).parents[2] / "docs" / "first-kind.md"


@pytest.fixture
def blocks(tmp_path, monkeypatch) -> list[str]:
    """The page's blocks of Python, the first one as a file of a folder that the environment lists."""
    code_blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    folder = tmp_path / "my_kinds"
    folder.mkdir()
    (folder / "confidence.py").write_text(code_blocks[0])
    monkeypatch.setenv("VINNOW_KINDS", str(folder))
    return code_blocks


def test_the_page_is_true(blocks, tiny_pool, tiny_model, tmp_path):
    assert "confidence" in registry.names()
    scope = {}
    exec(compile(blocks[1], str(PAGE), "exec"), scope)
    scope["test_confidence_falls_with_the_loss"](tiny_pool, tiny_model, tmp_path / "out")


def test_it_travels_to_a_worker_as_plain_values(blocks):
    import pickle

    from vinnow.actors.config import FeatureConfig

    config = FeatureConfig(kind="confidence", sharpness=3)
    packed = pickle.dumps(config)
    assert b"vinnow_file" not in packed
    assert pickle.loads(packed) == config  # noqa: S301
