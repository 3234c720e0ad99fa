"""What the pages say is there, is there; and nothing in the tree knows the machine that it was written on."""

import importlib
import re
import subprocess
from pathlib import Path

import pytest
from house.rules import ROOMS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
# put together here, so that this file does not hold what it looks for
ELSEWHERE = ("work/", "root/", "opt/pypi", "opt/wheels", "tmp/bash_", r"home/(?!ubuntu\b)\w+")
MACHINE = re.compile("|".join("/" + path for path in ELSEWHERE))
BINARY = {".png", ".jpg", ".parquet", ".safetensors", ".gz", ".whl"}


def tree_files(root: Path) -> list[Path]:
    """Files that git tracks or would track; without git (an unpacked archive) all that is not hidden."""
    if (root / ".git").exists():
        listing = ["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"]
        out = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        names = [n for n in out.split("\0") if n]
    else:
        skipped = {"runs", "build", "dist"}
        relative = [p.relative_to(root) for p in root.rglob("*")]
        hidden = [any(x.startswith(".") or x == "__pycache__" for x in p.parts) for p in relative]
        names = [str(p) for p, h in zip(relative, hidden, strict=True) if not h and p.parts[0] not in skipped]
    return [root / n for n in names if (root / n).is_file() and (root / n).suffix not in BINARY]


def machine_paths(text: str) -> list[str]:
    return [line.strip()[:120] for line in text.splitlines() if MACHINE.search(line)]


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
    return kept.replace(" ", "-")


def broken_links(page: Path, text: str) -> list[str]:
    """Links to files or headings that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists():
            broken.append(target)
        elif anchor and file.suffix == ".md":
            body = text if file == page else file.read_text(encoding="utf-8")
            if anchor not in {slug(h) for h in re.findall(r"^#+ (.*)$", body, flags=re.M)}:
                broken.append(target)
    return broken


def missing_paths(text: str) -> list[str]:
    """Paths in backticks that begin at a top folder and are not there; capitals make a placeholder."""
    tops = {*ROOMS, "tests", "benchmarks", "docs", "examples"}
    missing = []
    for name in re.findall(r"`([\w./*-]+)`", text):
        if "/" in name and name.split("/")[0] in tops and name == name.lower():
            path = name.rstrip("/")
            if not any(ROOT.glob(path)):
                missing.append(name)
    return missing


def contract_names(text: str) -> list[tuple[str, str, str]]:
    """Return (room, module, name) for each `module.name` that opens a bullet of a room's section."""
    documented = []
    for room, section in re.findall(r"^## (\w+)/[^\n]*\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S):
        for module, name in re.findall(r"^- `([a-z_]+(?:/[a-z_]+)*)\.(?!py\b)([A-Za-z_]+)", section, flags=re.M):
            documented.append((room, module, name))
    return documented


def test_nothing_names_the_machine_it_was_written_on():
    files = tree_files(ROOT)
    assert ROOT / "pyproject.toml" in files
    texts = {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in files}
    assert {name: lines for name, text in texts.items() if (lines := machine_paths(text))} == {}


def test_a_machine_path_is_seen():
    assert machine_paths("see " + "/work" + "/x") == ["see " + "/work" + "/x"]
    assert machine_paths("cd /" + "home/alice/vinnow")
    assert not machine_paths("cd /home/ubuntu/vinnow, or ~/vinnow, or framework/x")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_and_paths_of_a_page_are_there(page):
    text = page.read_text(encoding="utf-8")
    assert broken_links(page, text) == []
    assert missing_paths(text) == []


def test_a_broken_link_is_seen():
    page = ROOT / "docs" / "contracts.md"
    text = "# One `Two`\n[a](gone.md) [b](contracts.md) [c](#one-two) [d](#three) [e](https://x.org/y)"
    assert broken_links(page, text) == ["gone.md", "#three"]
    paths = "`select/methods/random_.py` `select/methods/gone.py` `select/methods/MINE.py` `select/`"
    assert missing_paths(paths) == ["select/methods/gone.py"]


@pytest.mark.parametrize(("room", "module", "name"), contract_names((ROOT / "docs/contracts.md").read_text()))
def test_a_contract_names_what_exists(room, module, name):
    assert hasattr(importlib.import_module(f"vinnow.{room}.{module}".replace("/", ".")), name)


def test_contracts_are_read():
    assert len(contract_names((ROOT / "docs/contracts.md").read_text())) > 15
