"""docs/recipes.md's plans, made by `vinnow plan`'s own code: `python benchmarks/_recipe_plans.py` rewrites them.

Of 600 records with mix665k's composition (`make_pool.py`), counted as its 665,298, and models of the published shapes that
are not there: tokens are estimated from characters. A plan stands between `<!-- plan NAME -->` and `<!-- end -->`;
tests/pipelines/test_recipes.py holds the page to what plan prints.
"""

import io
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_pool import ROWS, write_json
from vinnow.pipelines.runs.config import load_run
from vinnow.pipelines.runs.plan import make_plan
from vinnow.pipelines.runs.plan_shown import print_plan

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
BLOCK = re.compile(r"(<!-- plan ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
RECORDS = 600
CLIP = {"image": 336, "patch": 14, "vision_hidden": 1024, "vision_layers": 24, "max_len": 4096}
SEVEN = CLIP | {"hidden": 4096, "layers": 32, "heads": 32, "ffn": 11008, "vocab": 32000}
MISTRAL = SEVEN | {"llm": "mistral", "ffn": 14336}
# StableLM-2-1.6B: gated layers of these sizes, as LLaMA has them
STABLELM = CLIP | {"hidden": 2048, "layers": 24, "heads": 32, "ffn": 5632, "vocab": 100352}
MODELS = {
    "less-llava665k": SEVEN,
    "xmas-llava665k": STABLELM,
    "scienceqa-mistral": MISTRAL,
    "mores-vs-connector": STABLELM | {"hidden": 2560, "layers": 32, "ffn": 6912, "vocab": 51200},
}
# rows of each data set, where the published one has a number
SIZES = {"pool": ROWS, "captions": 558_128, "target": 285, "test": 4241}
OWN_SIZES = {"scienceqa-mistral": {"pool": 12_726}}


def plan_text(name: str) -> str:
    """Return what `vinnow plan` prints of a recipe, but for the config of each stage; `mix.json` lies here."""
    source = {"source": "mix.json", "check_images": "none"}
    values: dict[str, Any] = {"pool": source, "test": source, "model": {"twin": MODELS[name]}}
    recipe = (PAGE.parent.parent / "pipelines" / "recipes" / f"{name}.yaml").read_text()
    values |= {part: source for part in ("captions", "target") if re.search(rf"^{part}:", recipe, flags=re.M)}
    run = load_run(name, **values)
    said = io.StringIO()
    with _counted(SIZES | OWN_SIZES.get(name, {})), redirect_stdout(said):
        print_plan(run, make_plan(run))
    shown = said.getvalue().split("- Evaluation, pads and reading pictures are not priced")[0]
    return "\n".join(line.rstrip() for line in shown.strip().splitlines())


@contextmanager
def _counted(sizes: dict[str, int]) -> Iterator[None]:
    """Have the plan count rows as the published data sets have them."""
    module = sys.modules[make_plan.__module__]
    look = module.look  # type: ignore[attr-defined]

    def counted(config: Any, place: str) -> Any:
        return replace(look(config, place), rows=sizes[place.rsplit("/", 1)[-1]])

    with patch.object(module, "look", counted):
        yield


def filled(page: str) -> str:
    """Return the page with every plan as it is now."""
    # relative paths: a table is as wide as what stands in it
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_json("mix.json", RECORDS)
        return BLOCK.sub(lambda m: f"{m[1]}```text\n{plan_text(m[2])}\n```\n{m[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
