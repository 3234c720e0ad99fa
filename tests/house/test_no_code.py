"""Nothing that a folder of data brings is run: every loading call says so, and no pickle is read without a look first."""

import re
from pathlib import Path

import pytest
from house.rules import ROOMS

ROOT = Path(__file__).parents[2]
SOURCES = {f: f.read_text() for room in ROOMS for f in (ROOT / room).rglob("*.py")}


def test_every_loading_call_refuses_remote_code():
    calls = [
        (f.name, text[m.start() : m.start() + 260])
        for f, text in SOURCES.items()
        for m in re.finditer(r"\b\w+(\(\w+\))?\.from_pretrained\(", text)
    ]
    assert len(calls) >= 7
    # PEFT's config is a JSON of settings; it has no code to bring
    open_calls = [c for c in calls if "LOCAL" not in c[1] and not c[1].startswith("PeftConfig")]
    assert open_calls == []


def test_no_file_is_unpickled():
    for f, text in SOURCES.items():
        assert not re.search(
            r"weights_only=False|\bpickle\.load|\bjoblib\.load|allow_pickle=True|\byaml\.load\(", text
        ), f
        for m in re.finditer(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in m[0], f


def test_chat_templates_are_rendered_in_a_sandbox_by_the_library_too():
    """Nothing of ours renders one (`rules.open_templates`); who will, does it by this, and bounds it."""
    from jinja2.exceptions import SecurityError
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [{"role": "user", "content": "hello"}]
    assert render_jinja_template([turns], chat_template="{{ messages[0].content }}")[0] == ["hello"]
    climbing = ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}")
    for template in (*climbing, "{% for i in range(10 ** 9) %}{% endfor %}"):
        with pytest.raises((SecurityError, OverflowError)):
            render_jinja_template([turns], chat_template=template)
