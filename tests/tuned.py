"""A sweep's trials as Tune shows them to callbacks, without a sweep."""

import json
import os

from finished import values_of
from vinnow.pipelines.runs.choices import trials
from vinnow.pipelines.runs.config import resolve


class Tuned:
    """A trial as Tune shows it to callbacks."""

    def __init__(self, config, name, choice):
        folder = os.path.abspath(f"{config.out}/sweep/{name}")
        plain = {"selector": choice.selector, "budget": choice.budget, "seed": choice.seed, "variant": ""}
        self.trial_id, self.local_path = name, str(config.out)
        self.experiment_dir_name = "tune"
        self.config = {"trial": json.dumps(plain | {"name": name, "folder": folder, "train": {"model": "m"}})}


def sweep_of(folder, **changes):
    """Return a config and its trials."""
    values = values_of(folder) | {"selectors": [{"name": "random"}, {"name": "xmas"}]} | changes
    config = resolve(values)
    return config, [Tuned(config, name, choice) for name, (choice, _) in trials(config).items()]
