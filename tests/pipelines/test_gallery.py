"""The records that the report shows: called what they are, in the order that their title says, large enough to see."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from vinnow.pipelines.report.build import page
from vinnow.pipelines.report.data import Gallery, ReportData, Shown
from vinnow.pipelines.report.gather import gallery_of
from vinnow.pool.reader import Pool
from vinnow.select.protocol import MEANINGS
from vinnow.select.rows import picks_table, scores_table


def titles(markup):
    """The headings of a gallery's lists."""
    return re.findall("<h4>(.*?)</h4>", markup)


def test_only_scores_that_tell_a_row_s_worth_make_a_best_first():
    def shown(means, passed=True):
        one = [Shown([], "color", 0.5)]
        return page(ReportData(galleries=[Gallery("any", "10%", one, one * passed, means)]))

    called = {means: titles(shown(means))[0].lower() for means in MEANINGS}
    assert called["worth"] == "taken, best first"
    assert called["order"] == "taken, in the order of picking"
    assert "sample" in called["chance"]
    assert not any("best" in called[means] for means in ("order", "chance"))
    assert "score 0.5" in shown("order")
    assert "score 0.5" not in shown("chance")
    # a list without a row has no heading, but a sentence
    assert len(titles(shown("worth", passed=False))) == 1
    assert "No row was passed over." in shown("worth", passed=False)


@pytest.mark.parametrize("means", MEANINGS)
def test_rows_of_a_gallery_are_listed_as_its_title_says(tiny_pool, means):
    pool = Pool(tiny_pool)
    ids = np.sort(pool.ids()[pool.has_image()])[:20]
    score = np.round(np.linspace(0, 1, 20) * 7 % 1, 1)  # many are equal
    scores = scores_table(ids, "", 0 * ids, score)
    picked = np.argsort(score, kind="stable")[10:]  # worst first, equal ones by id: no best-first order
    picks = picks_table(ids[picked], 0 * picked, score[picked], "any", 10, 0)
    gallery = gallery_of(pool, ("any", "10"), picks, scores, means)
    assert gallery.text_left_out
    order = sorted(picked, key=lambda i: (-score[i], ids[i])) if means == "worth" else picked
    wanted = [(r.conversations, s) for r, s in zip(pool.take(ids[order]), score[order], strict=True)][:8]
    assert [(s.turns, s.score) for s in gallery.picked] == wanted
    passed = sorted(set(range(20)) - set(picked), key=lambda i: (score[i], ids[i]))[:8]
    assert [s.score for s in gallery.passed] == score[passed].tolist()


def shown_sizes(folder, *sizes):
    """Show noise of some sizes, which nothing compresses: each picture as it is embedded, and the size that it is given."""
    rng = np.random.default_rng(0)
    records = []
    for i, (width, height) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{i}.png")
        records.append(Shown([], "", 0.0, f"{i}.png", str(folder)))
    tags = re.findall(
        r'<img src="data:image/\w+;base64,([^"]+)" alt="[^"]*" width="(\d+)" height="(\d+)">', page_of(records)
    )
    return [(Image.open(io.BytesIO(base64.b64decode(uri))), len(uri), (int(w), int(h))) for uri, w, h in tags]


def page_of(records):
    return page(ReportData(galleries=[Gallery("any", "10%", records, [])]))


def test_pictures_are_large_enough_to_see_and_small_enough_to_hold(tmp_path):
    photo, small, tall = shown_sizes(tmp_path, (1200, 900), (64, 64), (40, 4000))
    for picture, length, (width, height) in (photo, small, tall):
        assert max(width, height) >= 160
        # not more than is shown: a gallery of every method stays a page of a few MB
        assert max(picture.size) <= max(width, height)
        assert length < 60_000
    assert photo[2] == (192, 144)
    assert small[0].size == (64, 64)
    assert tall[2][0] >= 1
