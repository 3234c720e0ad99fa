"""Steps on a kept cache against Hugging Face's `generate`, which computes the same without either."""

from dataclasses import replace

import pytest
import torch
from trained import add_lora
from vinnow.evaluate.generator import Generator, Turn
from vinnow.evaluate.sampling import Sampling
from vinnow.evaluate.stepper import Stepper, can_step
from vinnow.models.load import load
from vinnow.models.mores import add_mores
from vinnow.models.specs import MoresSpec
from vinnow.pool.images import load_image
from vinnow.pool.inputs import InputConfig
from vinnow.pool.reader import Pool
