"""Every command that the pages show exists: `make` targets, and `vinnow` lines through its own parser."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
GROUP = typer.main.get_command(app)


def shell_lines(text: str) -> list[str]:
    """Return the commands of the ```sh blocks: continued lines joined, no comments or prompts, `&&` split."""
    lines = []
    for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            part: list[str] = []
            for word in [*words, "&&"]:
                if word in {"&&", "|", ";", ">"}:
                    lines += [shlex.join(part)] if part else []
                    part = []
                else:
                    part.append(word)
    return lines


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))


def problem(line: str) -> str | None:
    """Say what is wrong with one command line; None when it would start, or is not ours to judge."""
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:1] == ["make"]:
        asked = [w for w in words[1:] if "=" not in w and not w.startswith("-")]
        return next((f"no target {t!r} in the Makefile" for t in asked if t not in make_targets()), None)
    position = next((i for i, w in enumerate(words) if w == "vinnow" or w.endswith("/vinnow")), None)
    # `ray job submit … -- python -m vinnow …` shows one too; a path that ends in vinnow is not one
    if position is None or (position > 0 and words[position - 1] != "-m") or not words[position + 1 :]:
        return None
    name, arguments = words[position + 1], words[position + 2 :]
    if name.startswith("-"):
        return None if name in {"--help"} else f"vinnow has no option {name}"
    if name not in GROUP.commands:
        return f"no command {name!r}; there are {sorted(GROUP.commands)}"
    if "--help" in arguments:
        return None
    try:
        GROUP.commands[name].make_context(name, arguments)
    except Exception as error:
        # Typer carries its own click in some versions: known by what it offers, not by its class
        if not hasattr(error, "format_message"):
            raise
        return error.format_message()
    return None


def test_there_is_a_readme_and_it_shows_the_two_commands():
    shown = shell_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"make demo", "make test"} <= set(shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_would_start(page):
    problems = {line: problem(line) for line in shell_lines(page.read_text(encoding="utf-8"))}
    assert {line: wrong for line, wrong in problems.items() if wrong} == {}


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_every_command_explains_itself(name):
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert GROUP.commands[name].help


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("make dmeo", "dmeo"),
        ("make PYTHON=python3.12 demoo", "demoo"),
        ("vinnow selct --pool p", "selct"),
        ("vinnow select --pool p --selector less --budget 10% --ot o", "--ot"),
        ("vinnow select --pool p --selector less --budget 10%", "out"),
        (".venv/bin/vinnow ingest a.json b.json --out pool", "b.json"),
        ("CUDA_VISIBLE_DEVICES=0 vinnow evaluate --model m --pool p --out o --batch 3", "--batch"),
        ("ray job submit --address http://127.0.0.1:8265 -- python -m vinnow pick --pool p", "pick"),
        ("vinnow --verion", "--verion"),
    ],
)
def test_a_wrong_command_is_seen(line, word):
    assert word in (problem(line) or "")


@pytest.mark.parametrize(
    "line",
    [
        "make demo",
        'make test ARGS="-k less"',
        "vinnow select --pool p --selector less --budget 10% --budget 25 --out o --set clusters=3",
        "vinnow demo --help",
        "vinnow --help",
        "cd vinnow",
        "git clone https://example.com/vinnow",
        "vinnow plan demo",
    ],
)
def test_a_right_command_passes(line):
    assert problem(line) is None


def test_blocks_are_read_as_a_shell_would():
    text = "```sh\n# all of it\n$ make demo && vinnow \\\n  report runs/demo  # again\n```\n"
    text += "```python\nmake cake\n```\n"
    assert shell_lines(text) == ["make demo", "vinnow report runs/demo"]


def test_measured_tables_are_those_of_the_results():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = (ROOT / "docs/benchmarks.md").read_text()
    assert {m[2] for m in tables.BLOCK.finditer(page)} == tables.TABLES.keys()
    assert tables.filled(page) == page, "run: python benchmarks/_tables.py"
