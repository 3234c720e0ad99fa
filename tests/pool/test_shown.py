"""What the model sees is what a viewer shows: orientation, transparency, deep values; and each is counted."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin
from vinnow.models.encoding import make_encoder
from vinnow.models.load import load_processor
from vinnow.pool.doctor import examine
from vinnow.pool.images import ImageError, load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.long_pad import is_long, pad_and_resize
from vinnow.pool.shown import traits
from vinnow.store.errors import InputError

GREY = np.linspace(0, 255, 48).round().astype(np.uint8).reshape(6, 8)
CORNERS = Image.new("RGB", (16, 8), "white")
CORNERS.putpixel((0, 0), (255, 0, 0))
CORNERS.putpixel((15, 0), (0, 255, 0))


def seen(tmp_path, picture, name, **options):
    path = tmp_path / name
    picture.save(path, **{k: v for k, v in options.items() if k != "pictures"})
    return np.asarray(load_image(str(tmp_path), name, pictures=options.get("pictures", "white"))).astype(int)


@pytest.mark.parametrize("name", ["x.png", "x.tiff", "x.pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, name):
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    got = seen(tmp_path, deep, name)
    assert np.abs(got - GREY[..., None]).max() <= 1
    assert traits(Image.open(tmp_path / name)) == ("deep_picture",)
    published = np.asarray(load_image(str(tmp_path), name, pictures="published"))
    assert (published == 255).mean() > 0.9 or name == "x.pgm"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.0, 10.0), (-3, 7.5), (300, 70_000)])
def test_floats_and_wide_integers_span_black_to_white(tmp_path, low, high):
    values = GREY / 255 * (high - low) + low
    assert np.abs(seen(tmp_path, Image.fromarray(values.astype(np.float32)), "f.tiff") - GREY[..., None]).max() <= 1
    if high > 65_535:
        got = seen(tmp_path, Image.fromarray(values.astype(np.int32)), "i.tiff")
        assert np.abs(got - GREY[..., None]).max() <= 1


def test_a_float_picture_without_brightness_is_refused(tmp_path):
    values = GREY.astype(np.float32)
    values[2, 2] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tiff")
    with pytest.raises(ImageError, match="NaN") as caught:
        load_image(str(tmp_path), "nan.tiff")
    assert caught.value.reason == "image_unreadable"


def transparent(mode):
    """Black lines on a clear canvas whose hidden colour is black too, as plots are saved."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[3] = 255
    if mode == "RGBA":
        return Image.fromarray(np.dstack([np.zeros((8, 8, 3), np.uint8), alpha])), {}
    if mode == "LA":
        return Image.merge("LA", (Image.new("L", (8, 8)), Image.fromarray(alpha))), {}
    flat = np.where(alpha > 0, 10, 200).astype(np.uint8)
    if mode == "P":
        picture = Image.fromarray(flat, "P")
        picture.putpalette([0] * 768)
        return picture, {"transparency": 200}
    if mode == "L":
        return Image.fromarray(flat), {"transparency": 200}
    return Image.fromarray(np.dstack([flat] * 3)), {"transparency": (200, 200, 200)}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
@pytest.mark.parametrize("ground", ["white", "black"])
def test_transparent_parts_lie_on_the_ground(tmp_path, mode, ground):
    picture, options = transparent(mode)
    got = seen(tmp_path, picture, "t.png", **options, pictures=ground)
    assert (got[0] == {"white": 255, "black": 0}[ground]).all()
    assert (got[3] < 20).all()
    with Image.open(tmp_path / "t.png") as again:
        again.load()
        assert "transparent_picture" in traits(again)


def test_a_picture_with_an_opaque_alpha_is_what_it_was(tmp_path):
    got = seen(tmp_path, Image.fromarray(np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])), "o.png")
    assert np.array_equal(got, np.dstack([GREY] * 3))
    with Image.open(tmp_path / "o.png") as again:
        again.load()
        assert traits(again) == ()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["e.png", "e.jpg", "e.webp", "e.tiff"])
def test_each_orientation_is_applied(tmp_path, name, turn):
    exif = Image.Exif()
    exif[274] = turn
    options = {"quality": 100, "subsampling": 0} if name == "e.jpg" else {"lossless": True} if name == "e.webp" else {}
    got = seen(tmp_path, CORNERS, name, exif=exif, **options)
    with Image.open(tmp_path / name) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB")).astype(int)
    assert got.shape == ((8, 16, 3) if turn < 5 else (16, 8, 3))
    assert np.array_equal(got, expected)
    plain = np.asarray(load_image(str(tmp_path), name, pictures="published"))
    assert plain.shape == (8, 16, 3) or name == "e.tiff"  # PIL itself turns a TIFF


def test_a_damaged_exif_block_leaves_the_picture(tmp_path):
    CORNERS.save(tmp_path / "d.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert load_image(str(tmp_path), "d.jpg").size == (16, 8)


def test_doctor_and_ingest_count_each_kind_once_a_file(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    CORNERS.save(tmp_path / "phone.jpg", exif=exif)
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    picture, options = transparent("P")
    picture.save(tmp_path / "plot.png", **options)
    CORNERS.save(tmp_path / "two.gif", save_all=True, append_images=[CORNERS.rotate(180)], duration=9)
    CORNERS.save(tmp_path / "plain.jpg")
    CORNERS.save(tmp_path / "profile.png", icc_profile=b"some other colours")
    CORNERS.save(tmp_path / "sure.jpg", format="PNG")
    CORNERS.save(tmp_path / "0123abcd", format="PNG", pnginfo=PngImagePlugin.PngInfo())
    names = ["phone.jpg", "deep.png", "plot.png", "two.gif", "plain.jpg", "profile.png", "sure.jpg", "0123abcd"]
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    records = [{"id": i, "image": n, "conversations": turns} for i, n in enumerate([*names, *names])]
    (tmp_path / "r.json").write_text(json.dumps(records))
    config = IngestConfig(source=str(tmp_path / "r.json"), image_root=str(tmp_path))
    report = examine(config)
    kinds = ("deep_picture", "transparent_picture", "rotated_picture", "animated_picture", "colour_profile")
    assert {k: report.warnings.get(k) for k in kinds} == dict.fromkeys(kinds, 1)
    assert report.warnings["misnamed_image"] == 1  # a name without an ending says nothing false
    assert "'phone.jpg'" in report.examples["rotated_picture"][0]
    assert ingest(config, str(tmp_path / "pool")).pictures == dict.fromkeys(kinds, 1)


def test_how_pictures_are_shown_is_part_of_the_recipe(tiny_model):
    processor = load_processor(tiny_model)
    shown = {p: make_encoder(processor, pictures=p).recipe() for p in ("white", "black", "published")}
    assert len({json.dumps(r) for r in shown.values()}) == 3
    with pytest.raises(InputError, match="did you mean 'white'"):
        make_encoder(processor, pictures="withe")


# ---- long pictures ---------------------------------------------------------------------------------


def squared(picture, side, colour):
    """The square itself, resized: what padding a long picture must equal."""
    whole = max(picture.size)
    square = Image.new("RGB", (whole, whole), colour)
    square.paste(picture, ((whole - picture.width) // 2, (whole - picture.height) // 2))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(100, 2500), (2101, 7), (1, 3000), (2999, 41), (333, 1999), (37, 40)])
@pytest.mark.parametrize("side", [336, 64])
def test_a_long_picture_is_padded_as_its_square_would_be(size, side):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture, colour = Image.fromarray(noise), (122, 116, 104)
    assert np.array_equal(pad_and_resize(picture, side, colour), squared(picture, side, colour))


def test_the_encoder_takes_no_square_and_gives_what_the_processor_gives(tiny_model, monkeypatch):
    encoder = make_encoder(load_processor(tiny_model))
    noise = np.random.default_rng(1).integers(0, 256, (2400, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    assert is_long(picture.size)
    assert not is_long((640, 480))
    got = encoder.reader.pixels_u8(picture)
    monkeypatch.setattr("vinnow.models.family.of_llava.pictures.is_long", lambda size: False)
    assert np.array_equal(got, encoder.reader.pixels_u8(picture))
    monkeypatch.undo()
    monkeypatch.setattr(type(encoder.reader.images), "pad_to_square", lambda *a, **k: pytest.fail("a square was made"))
    assert encoder.reader.pixels_u8(Image.new("RGB", (200, 30_000))).shape == got.shape


@pytest.mark.parametrize("size", [(40, 3000), (3000, 41), (9, 400), (13, 1000)])
def test_a_sliver_is_cropped_as_if_all_of_it_had_been_resized(tiny_model, monkeypatch, size):
    encoder = make_encoder(load_processor(tiny_model), image_mode="square")
    # smooth: PIL may take its passes in the other order, which clips noise otherwise
    coarse = np.random.default_rng(2).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    expected = encoder.reader.pixels_u8(picture).astype(int)
    monkeypatch.setattr("vinnow.models.family.of_llava.pictures.is_sliver", lambda size, side: True)
    assert np.abs(encoder.reader.pixels_u8(picture) - expected).max() <= 2
    monkeypatch.undo()
    assert encoder.reader.pixels_u8(Image.new("RGB", (1, 200_000))).shape == expected.shape
