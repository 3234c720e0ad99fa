"""Spelled otherwise, but the same file; and where it is not, the file that was meant is named."""

import json
import os
import unicodedata

import pytest
from PIL import Image
from vinnow.pool.doctor import examine
from vinnow.pool.images import ImageError, load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.paths import below_root
from vinnow.pool.reader import Pool

NAMES = [
    "a.jpg",
    "sub/x.jpg",
    "my photo.jpg",
    "UP.JPG",
    unicodedata.normalize("NFD", "très.jpg"),
    "ocr.gif",
    "perc%20.jpg",
]


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return str(tmp_path / "images")


def talk(*images):
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    return [{"id": i, "image": image, "conversations": turns} for i, image in enumerate(images)]


def write(tmp_path, records, name="r.json"):
    (tmp_path / name).write_text(json.dumps(records))
    return str(tmp_path / name)


@pytest.mark.parametrize("path", ["a.jpg", "./a.jpg", "sub//x.jpg", "sub/../a.jpg", "sub/./x.jpg", "perc%20.jpg"])
def test_these_are_inside(root, path):
    assert load_image(root, path).size == (4, 4)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("up.jpg", "UP.JPG"),
        ("A.JPG", "a.jpg"),
        (unicodedata.normalize("NFC", "très.jpg"), unicodedata.normalize("NFD", "très.jpg")),
        ("my%20photo.jpg", "my photo.jpg"),
        (r"sub\x.jpg", "sub/x.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("sub/sub/x.jpg", "sub/x.jpg"),
        ("playground/data/sub/x.jpg", "sub/x.jpg"),
        ("ocr.jpg", "ocr.gif"),
        ("a", "a.jpg"),
        (" a.jpg", "a.jpg"),
        ("a.jpg?size=2", "a.jpg"),
        ("SUB/X.jpeg", "sub/x.jpg"),
    ],
)
def test_a_near_miss_names_the_file_that_was_meant(root, path, meant):
    with pytest.raises(ImageError, match="did you mean") as caught:
        load_image(root, path)
    assert caught.value.reason == "image_missing"
    assert repr(meant) in str(caught.value)


@pytest.mark.parametrize("path", ["nothing.jpg", "sub/y.png", "other/x.jpg", "", "sub"])
def test_nothing_near_is_said_to_be_near(root, path):
    with pytest.raises(ImageError) as caught:
        load_image(root, path)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["../a.jpg", "sub/../../a.jpg", "/etc/passwd", "https://e.org/a.jpg", "file:///etc/passwd"]
)
def test_what_is_outside_stays_outside(root, path):
    with pytest.raises(ImageError) as caught:
        load_image(root, path)
    assert caught.value.reason == "image_outside_root"
    assert ("URL" in str(caught.value)) == path.startswith("https")


def test_absolute_paths_under_the_root_are_the_same_pool(root, tmp_path):
    spelled = {
        "relative": ["a.jpg", "sub/x.jpg"],
        "absolute": [f"{root}/a.jpg", f"{root}//sub/x.jpg"],
        "uri": [f"file://{root}/a.jpg", f"file://{root}/sub/x.jpg"],
    }
    digests = set()
    for name, paths in spelled.items():
        source = write(tmp_path, talk(*paths), f"{name}.json")
        report = ingest(IngestConfig(source=source, image_root=root), str(tmp_path / name))
        assert (report.rows, report.refused) == (2, 0), name
        digests.add(report.digest)
    assert len(digests) == 1
    assert sorted(
        r.images[0] for r in Pool(str(tmp_path / "absolute")).take(Pool(str(tmp_path / "absolute")).ids())
    ) == [
        "a.jpg",
        "sub/x.jpg",
    ]
    everything = ingest(IngestConfig(source=source, image_root="/"), str(tmp_path / "slash"))
    assert everything.rows == 2
    outside = examine(IngestConfig(source=source, image_root=f"{root}/sub"))
    assert outside.reasons == {"image_outside_root": 1}


def test_a_root_by_another_name_is_the_same_root(root, tmp_path):
    os.symlink(root, tmp_path / "link")
    assert below_root(f"{root}/a.jpg", str(tmp_path / "link")) == "a.jpg"
    assert below_root(f"{tmp_path}/link/a.jpg", str(tmp_path / "link")) == "a.jpg"
    assert below_root(f"{root}/../secret", root) == f"{root}/../secret"
    assert below_root(f"{root}-other/a.jpg", root) == f"{root}-other/a.jpg"


def test_links_lead_out_only_when_asked_and_all_stages_remember(root, tmp_path):
    (tmp_path / "data").mkdir()
    os.symlink(root, tmp_path / "data/coco")
    source = write(tmp_path, talk("coco/a.jpg", "coco/sub/x.jpg", "coco/../../r.json"))
    config = {"source": source, "image_root": str(tmp_path / "data"), "max_refused": 1}
    config = {k: v for k, v in config.items() if k in IngestConfig.model_fields}
    report = examine(IngestConfig(**config))
    assert report.reasons == {"image_outside_root": 3}
    assert "--follow-links" in report.examples["image_outside_root"][0]
    assert os.path.realpath(root) in report.examples["image_outside_root"][0]
    ingested = ingest(IngestConfig(**config, follow_links=True), str(tmp_path / "pool"))
    assert (ingested.rows, ingested.reasons) == (2, {"image_outside_root": 1})
    pool = Pool(str(tmp_path / "pool"))
    assert load_image(pool.image_root, "coco/a.jpg").size == (4, 4)
    assert pool.check_images() == pool.image_root
    with pytest.raises(ImageError):
        load_image(pool.image_root, "../r.json")
