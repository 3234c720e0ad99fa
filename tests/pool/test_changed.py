"""A picture that is another one than at ingest is refused where it is read; the same one is not, however it is decoded."""

import io
import random

import numpy as np
import pytest
from pictures import make_records, write_records
from PIL import Image
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.pool.checks import ImageError
from vinnow.pool.dedup import difference_hash
from vinnow.pool.images import load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.refusals import read_refused


def noisy(mode, size=(90, 70), seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return coarse.convert(mode)


def paper(size=(400, 300)):
    """Nearly flat: the hash of such a picture is a matter of rounding."""
    rng = np.random.default_rng(1)
    return Image.fromarray((253 + rng.integers(0, 3, (*size[::-1], 3))).astype(np.uint8))


CASES = {
    "photo.jpg": (noisy("RGB"), {"quality": 80}),
    "paper.jpg": (paper(), {"quality": 60}),
    "turned.jpg": (noisy("RGB"), {"exif": 6}),
    "cmyk.jpg": (noisy("CMYK"), {}),
    "grey.png": (noisy("L"), {}),
    "palette.png": (noisy("P"), {}),
    "alpha.png": (noisy("RGBA"), {}),
    "one.gif": (noisy("P"), {}),
    "web.webp": (noisy("RGB"), {"quality": 50}),
    "deep.png": (Image.fromarray(np.array(noisy("L"), np.uint16) * 257), {}),
}


@pytest.mark.parametrize("pictures", ["white", "black", "published"])
@pytest.mark.parametrize("name", list(CASES))
def test_the_same_picture_is_the_same(tmp_path, name, pictures):
    picture, options = CASES[name]
    if "exif" in options:
        exif = Image.Exif()
        exif[274] = options["exif"]
        options = {"exif": exif}
    picture.save(tmp_path / name, **options)
    seen = difference_hash(load_image(str(tmp_path), name, glance=True))
    expected = load_image(str(tmp_path), name, pictures=pictures)
    got = load_image(str(tmp_path), name, pictures=pictures, seen=seen)
    assert got.tobytes() == expected.tobytes()
    noisy("RGB", seed=9).save(tmp_path / name, format=Image.open(io.BytesIO((tmp_path / name).read_bytes())).format)
    with pytest.raises(ImageError, match="is another picture than at ingest") as error:
        load_image(str(tmp_path), name, pictures=pictures, seen=seen)
    assert error.value.reason == "image_changed"


def test_features_of_a_pool_whose_pictures_were_exchanged_are_refused_and_come_back(tmp_path, tiny_model):
    records, pictures = make_records(20)
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    name = Pool(str(tmp_path / "pool")).take(Pool(str(tmp_path / "pool")).ids())[3].images
    name = name or Pool(str(tmp_path / "pool")).take(Pool(str(tmp_path / "pool")).ids())[4].images
    file = tmp_path / "images" / name[0]
    sound = file.read_bytes()
    noisy("RGB", seed=random.Random(3).randrange(99)).save(file)
    config = FeatureConfig(kind="loss", max_refused=0.2)
    spec = make_spec(str(tmp_path / "pool"), [CheckpointRef(1, tiny_model)], config, str(tmp_path / "out"))
    assert run_inline(spec).usage.refused == {"image_changed": 1}
    assert "another picture" in read_refused(tmp_path / "out", "loss")["detail"][0].as_py()
    assert run_inline(spec).parts == 0  # still another one: not tried for nothing
    file.write_bytes(sound)
    assert run_inline(spec).usage.refused == {}
