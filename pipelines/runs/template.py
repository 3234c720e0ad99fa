"""`vinnow init`: a run's YAML for a user's own data and model, with a word on each line that one may want to change."""

import os
from dataclasses import dataclass

import yaml

from ...store.claim import check_new_file
from ...store.files import write_bytes

_TEXT = """\
# A run of vinnow: {out_name} compares ways to choose from your data. First look at what it comes to:
#   vinnow doctor {source}{images_option}
#   vinnow plan {file}
#   vinnow run {file}
# Where things compute is left open: --gpus auto takes all GPUs of this machine.

# everything that the run makes lies here; the same command goes on where it stopped
out: {out}
seed: 0

# what is chosen from: LLaVA or ShareGPT JSON, Parquet or tar shards, ScienceQA
pool:
  source: {source}
  image_root: {images}
  # the share of rows that may be refused (a picture that is missing, say) before the run stops
  max_refused: 0.01

# what the fine-tuned models are asked: records whose last answer is the right one
test:
  source: {test}
  image_root: {test_images}

# what LESS aims at: some records of each task that you care about (never those of `test`). Remove it with `less`.
target:
  source: {target}
  image_root: {test_images}

model:
  # a Hugging Face LLaVA folder; `vinnow build` makes one of a language model and a vision tower
  path: {model}

# a short training over the whole pool: its checkpoints are where gradients and attention are read
proxy:
  recipe: llava15-lora
  max_steps: 400
  checkpoint_count: 4

features:
  # LESS: gradients of the LoRA weights, projected to 8,192 numbers a row
  - kind: gradient
    which: lora
    projection: {{kind: sjlt, dim: 8192}}
    dtype: float16
  # XMAS: attention from the answer to the picture
  - kind: trajectory

selectors:
  - name: random      # what every other one has to beat
  - name: less
  - name: xmas
  # all of them, and what they read: vinnow selectors

# shares of the pool, or numbers of rows
budgets: ["5%", "20%"]
# more seeds, more trust in a difference: [0, 1, 2]
seeds: [0]

# how each choice is trained on; `full: true` below trains on everything as well, for the price of that
finetune:
  recipe: llava15-lora
sweep:
  full: true

evaluate:
  benchmark: exact_match
  max_new_tokens: 16

# what `vinnow plan` prices an hour of one GPU at
plan:
  gpu_hour_price: 2.5
"""


@dataclass(frozen=True)
class Start:
    """What `init` is given: paths as the YAML is to name them; None is left as a place to fill."""

    source: str
    images: str | None = None
    model: str | None = None
    test: str | None = None
    target: str | None = None
    out: str = "runs/first"


def write_start(start: Start, file: str) -> str:
    """Write the YAML of a run; returns the path.

    Raises:
        InputError: there is such a file already, or it cannot be written there.
    """
    check_new_file(file)
    write_bytes(file, text_of(start, file).encode())
    return file


def text_of(start: Start, file: str) -> str:
    """Return the YAML's text; a value that was not given is one that `vinnow plan` names as missing."""
    images = start.images or "PATH/TO/IMAGES"
    values = {
        "out": start.out,
        "source": start.source,
        "images": images,
        "test": start.test or "PATH/TO/test.json",
        "target": start.target or "PATH/TO/target.json",
        "test_images": images,
        "model": start.model or "PATH/TO/LLAVA",
    }
    named = {name: _scalar(value) for name, value in values.items()}
    option = f" --images {named['images']}" if start.images else ""
    return _TEXT.format(**named, file=file, out_name=os.path.basename(start.out) or start.out, images_option=option)


def _scalar(text: str) -> str:
    """Return a text as YAML writes it: quoted where it must be."""
    return yaml.safe_dump(text, allow_unicode=True, width=10**6).splitlines()[0]
