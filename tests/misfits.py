"""What tests of families of tiled pictures share: pictures of any size, rows of them, folders whose files do not fit."""

import json
import shutil

import numpy as np
from PIL import Image
from vinnow.models import registry
from vinnow.models.load import load_processor, read_config
from vinnow.pool.collate import stack
from vinnow.pool.encode import Encoded

# width and height, from a dot and a small square to a long strip
SIZES = [(64, 64), (300, 40), (17, 130), (1000, 700), (4000, 200), (1, 1)]


def noise(size):
    """An RGB picture of random pixels."""
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def finished(reader, sizes, double=False):
    """The media of pictures of these sizes, each alone in its row, as a model takes them; and each one's own."""
    each = [reader.prepare(noise(size)) for size in sizes]
    row = Encoded(1, np.arange(3), np.arange(3), tuple(map(str, sizes)), media=tuple(each))
    media = reader.finish(stack([row])["media"])
    return {n: v.double() if double and v.is_floating_point() else v for n, v in media.items()}, each


def check(path, out, file, section, name, value):
    """Hold a folder, one field of one file of which is changed, against its family's rules for what goes together."""
    shutil.copytree(path, out)
    content = json.loads((out / file).read_text())
    (content if section is None else content[section])[name] = value
    (out / file).write_text(json.dumps(content))
    config = read_config(out)
    family = registry.family_of(config)
    family.check_config(config)
    family.check_fit(config, load_processor(str(out)), str(out))
