"""YAML files, `--set` and paths as they come: each wrong one ends in one line, and none in a traceback."""

import json

import foreign
import pytest
from finished import values_of
from foreign import DEEP, HUGE, one_line, vinnow
from vinnow.pipelines.demo import run as demo

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "empty": b"",
    "tab": b"out: x\n\tpool: y\n",
    "bomb": BOMB.encode() + b"pool: *i\n",
    "twice": b"out: a\nseed: 1\nout: b\n",
    "unknown-anchor": b"a: *nope\n",
    "itself": b"out: &a [*a]\n",
    "merge": b"<<: 3\n",
    "no-date": b"out: 2001-13-45\n",
    "number-for-a-name": b"1: 2\n",
    "list-for-a-name": b"[1, 2]: 3\n",
    "list": b"- 1\n",
    "text": b"hello",
    "null": b"null",
    "nested": ("[" * 1000 + "]" * 1000).encode(),
    "nested-maps": ("{a: " * 1000 + "1" + "}" * 1000).encode(),
    "deep-json": DEEP.encode(),
    "deeper": b"[" * 20_000,
    "binary": bytes(range(256)),
    "zeros": bytes(64),
    "latin1": b"out: caf\xe9\n",
    "object": b"a: !!python/object:os.system x\n",
    "int-tag": b"a: !!int x\n",
    "float-tag": b"a: !!float x\n",
    "time-tag": b"a: !!timestamp x\n",
    "binary-tag": b"a: !!binary '%%%'\n",
    "several": b"a: 1\n---\nb: 2\n",
    "unclosed": b"a: [1, 2\n",
    "colons": b"a: b: c\n",
    "huge": b"seed: " + HUGE.encode(),
    "no-hex": b"seed: 0x_\n",
    "underscore": b"seed: 0b_\n",
    "control": b"a: \x07\n",
    "unknown-field": b"outt: x\n",
}
VALUES = [
    *("", "null", "many", "-3", "[1, x]", "{a: 1}", ".nan", ".inf", HUGE, "[" * 400 + "]" * 400, "2001-13-45"),
    *("'", "[", "{", "*x", "!!int x", "!!timestamp x", "!!python/name:os.system x", "\x00", "\x07", "{[1]: 2}", "0x_"),
]
SETS = [
    *("a", "=1", "=", "a..b=1", ".a=1", "a.=1", "seed.x=1", "pool.source.x=1", "budgets.9=1", "budgets.²=1"),
    *(f"budgets.{HUGE}=1", "selectors.0.name.x=1", "selectors.0=1", "features.0=less", "proxy.recipe=[1]"),
    *("finetune.recipe=../../x", "finetune.variants=3", "finetune.variants={1: 2}", "budgets=[null]"),
    *(
        "budgets=['1e9999999%']",
        "budgets=['1/0%']",
        "budgets=['inf%']",
        "plan.rate_file=/tmp",
        "plan.rate_file=/nowhere",
    ),
    *("plan.rate_file=/etc/passwd", "out=", "pool.source=/dev/zero", "pool.source=''", 'pool.image_root="a\\0b"'),
    *("pool.source=x://y", "pool.source=file://", "pool.source=hf://a", "seeds=[a]"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sound run's YAML."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "run.yaml").write_text(json.dumps(values_of(folder)))
    return folder / "run.yaml"


@pytest.mark.parametrize("name", FILES)
def test_a_yaml_file(run, tmp_path, name):
    odd = tmp_path / "odd.yaml"
    odd.write_bytes(FILES[name])
    for arguments in (["plan", odd], ["train", odd, "--out", tmp_path / "out"]):
        one_line(vinnow(*arguments))
    line = one_line(vinnow("plan", run, "--set", f"finetune.recipe={odd}"))
    assert "odd.yaml" in line or "'finetune." in line


def test_a_sound_one_may_have_a_mark_or_be_utf_16(run, tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "run.yaml").write_bytes(run.read_text().encode(encoding))
        assert vinnow("plan", tmp_path / "run.yaml").code == 0


@pytest.mark.parametrize("how", ["folder", "loop", "dangling", "fifo"])
def test_what_is_no_file(tmp_path, how):
    foreign.JSON[how](tmp_path / "odd.yaml")
    one_line(vinnow("plan", tmp_path / "odd.yaml"), "odd.yaml")


@pytest.mark.parametrize("entry", SETS, ids=lambda e: e[:30])
def test_an_override(run, entry):
    line = one_line(vinnow("plan", run, "--set", entry))
    assert len(line) < 1200, line


@pytest.mark.parametrize("value", VALUES, ids=lambda v: v[:12] or "empty")
def test_a_value_of_every_command(run, tmp_path, value):
    source = json.loads(run.read_text())["pool"]["source"]
    (tmp_path / "train.yaml").write_text(
        '{"model": "/nowhere", "pool": "/nowhere", "global_batch": 8, "micro_batch": 8}'
    )
    out = ["--out", tmp_path / "out"]
    for arguments, field in (
        (["plan", run], "budgets"),
        (["doctor", source], "check_images"),
        (["features", "--pool", "/nowhere", "--checkpoint", "1=/nowhere", *out], "projection"),
        (["select", "--pool", "/nowhere", "--selector", "stratified", "--budget", "5", *out], "column"),
        (["build", "--llm", "/nowhere", "--tower", "/nowhere", *out], "connector"),
        (["train", tmp_path / "train.yaml", *out], "lr"),
    ):
        one_line(vinnow(*arguments, "--set", f"{field}={value}"))


def test_the_demos_fields(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "build", foreign.no_ray)
    for value in ("many", "[1]", HUGE, "!!int x", "2001-13-45", "{[1]: 2}"):
        one_line(vinnow("demo", "--out", tmp_path / "demo", "--gpus", "0", "--set", f"data.pictures={value}"))


@pytest.mark.parametrize("path", ["a\0b", "a" * 300, "x/" * 3000, "/dev/null/x", "x://y"], ids=lambda p: p[:8])
def test_a_path_of_every_command(run, tmp_path, path):
    source = json.loads(run.read_text())["pool"]["source"]
    for arguments in (
        ["ingest", source, "--out", path],
        ["doctor", path],
        ["doctor", source, "--images", path],
        ["doctor", source, "--json", path],
        ["status", path],
        ["report", path],
        ["plan", path],
        ["train", path, "--out", tmp_path / "out"],
        ["merge", path, "--out", tmp_path / "out"],
        ["export", path, "--out", tmp_path / "e.json"],
        ["export-projector", path, "--out", tmp_path / "p.bin"],
        ["build", "--llm", path, "--tower", path, "--out", tmp_path / "out"],
        ["features", "--pool", "/nowhere", "--checkpoint", f"1={path}", "--out", tmp_path / "out"],
        ["evaluate", "--model", path, "--pool", "/nowhere", "--out", tmp_path / "out"],
        ["select", "--pool", path, "--selector", "random", "--budget", "5", "--out", tmp_path / "out"],
    ):
        one_line(vinnow(*arguments))


@pytest.mark.parametrize("text", ["", "x", "1e9", "1/0%", "nan%", HUGE, f"{HUGE}%", "1e999999999%", "0x1", " "])
def test_a_budget(tiny_pool, tmp_path, text):
    arguments = ["--pool", tiny_pool, "--selector", "random", "--out", tmp_path / "out"]
    one_line(vinnow("select", *arguments, "--budget", text))
    one_line(vinnow("select", *arguments, "--budget", "5", "--seed", "99999999999999999999"), "seed")


@pytest.mark.parametrize("text", ["1", "=x", "x=y", "-1=x", "²=x", f"{HUGE}=x"], ids=lambda t: t[:6])
def test_a_checkpoint(tiny_pool, tmp_path, text):
    one_line(vinnow("features", "--pool", tiny_pool, "--checkpoint", text, "--out", tmp_path / "out"), "STEP=FOLDER")
