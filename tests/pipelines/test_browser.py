"""A report in a real browser: filters, search, records, map, keyboard, dark, phone, downloads; no error, no request."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from browsers import chromium, opened
from reports import full_data
from vinnow.pipelines.report.build import build_report
from vinnow.pipelines.report.data import ReportData
from vinnow.store.tables import REFUSED

HELD = 20
# the least contrast of all visible text of a page, with what it is; backgrounds are put over each other up to the page's
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A report that holds 20 of its 60 records, hostile texts everywhere."""
    data = full_data(tmp_path_factory.mktemp("browser"), held=HELD)
    rows = [("duplicate", "=1+1"), ("duplicate", "b"), ("image_missing", "c")]
    refused = [{"sample_id": None, "source": "", "row": n, "reason": r, "detail": d} for n, (r, d) in enumerate(rows)]
    data.refused = {"pool": pa.Table.from_pylist(refused, schema=REFUSED)}
    return data


@pytest.fixture(scope="module")
def report(everything, tmp_path_factory):
    """The same without charts, whose library takes seconds to start: its address, and what its scripts are given."""
    folder = tmp_path_factory.mktemp("explored")
    build_report(str(folder), ReportData(explored=everything.explored, refused=everything.refused))
    return (folder / "report.html").as_uri(), everything.explored.explorer.payload


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def whole(browser, everything, tmp_path_factory):
    """The page with everything, charts too, all of it unfolded."""
    folder = tmp_path_factory.mktemp("whole")
    build_report(str(folder), everything)
    with opened(browser, (folder / "report.html").as_uri()) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        yield page


def pick(page, name, n):
    page.locator(f"#explorer-{name}").select_option(index=n)


def test_filters_count_what_is_here_and_what_the_whole_pool_has(browser, report):
    url, data = report
    with opened(browser, url) as page:
        count, cards = page.locator("#explorer-count"), page.locator("#explorer-cards > li")
        assert (
            "of 20 matching records of the 20 held here; in the whole pool 60 of 60 rows match." in count.inner_text()
        )
        # by hand: all 60 rows are points, the first 20 of them held
        names = list(dict.fromkeys(c["selector"] for c in data["choices"]))
        for selector, state, source in ((0, 1, 0), (2, 1, 1), (1, 2, 2)):
            pick(page, "selector", selector)
            pick(page, "budget", 1)
            pick(page, "seed", 1)
            pick(page, "state", state)
            pick(page, "source", source)
            choice = next(
                n
                for n, c in enumerate(data["choices"])
                if (c["selector"], c["rows"], c["seed"]) == (names[selector], 20, 1)
            )
            fits = [
                i
                for i in range(60)
                if (i in data["taken"][choice]) == (state == 1) and (not source or data["source"][i] == source - 1)
            ]
            here = [i for i in fits if i < HELD]
            assert f"of {len(here)} matching" in count.inner_text()
            assert f"in the whole pool {len(fits)} of 60" in count.inner_text()
            shown = [card.get_attribute("href").split("=")[1] for card in page.locator("#explorer-cards a").all()]
            ranks = data["scores"][data["choices"][choice]["scores"]]["rank"]
            assert shown == [data["id"][i] for i in sorted(here, key=lambda i: ranks[i])]
            assert cards.count() == len(here)
        # the top 1 % of the ranking of 60 is its first row
        pick(page, "state", 0)
        pick(page, "source", 0)
        pick(page, "to", 0)
        assert "in the whole pool 1 of 60" in count.inner_text()
        # no text of a pool became an element
        assert page.locator("[onerror], [onx], script[src]").count() == 0


def test_text_is_searched_in_the_records_that_are_here_and_it_says_so(browser, report):
    url, data = report
    with opened(browser, url) as page:
        page.locator("#explorer-search").fill("CIRCLE")
        texts = [" ".join(turn[1] for turn in one["turns"]).lower() for one in data["full"]]
        matching = sum("circle" in text for text in texts)
        assert 0 < matching < HELD
        said = page.locator("#explorer-count").inner_text()
        assert f"of {matching} matching" in said
        assert "60 of 60 rows match, the text left aside" in said
        page.locator("#explorer-search").fill("no such words")
        assert page.locator("#explorer-cards > li").count() == 0


def test_a_record_has_a_page_of_its_own_with_all_scores_and_choices(browser, report):
    url, data = report
    with opened(browser, url) as page:
        first = page.locator("#explorer-cards a").first
        record = first.get_attribute("href").split("=")[1]
        first.focus()
        page.keyboard.press("Enter")
        dialog = page.locator("#record")
        dialog.wait_for()
        assert page.evaluate("location.hash") == f"#record={record}"
        i, text = data["id"].index(record), dialog.inner_text()
        for scores in data["scores"]:
            assert scores["name"] in text
            assert f"{scores['rank'][i]} of {scores['rows']}" in text
        assert text.count("taken") + text.count("passed over") == len(data["choices"])
        # of a conversation every turn, as it stands
        said = [dd.text_content() for dd in page.locator("#record .turns dd").all()]
        assert said == [turn[1] for turn in data["full"][i]["turns"]]
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert page.evaluate("document.activeElement.getAttribute('href')") == f"#record={record}"
    # by its address; a point of the map that is not held says how to see all of it; so does one that is not here
    for asked, says in ((data["id"][HELD + 1], "first letters only"), ("7", "not this one")):
        with opened(browser, f"{url}#record={asked}") as page:
            assert says in page.locator("#record").inner_text()
            assert f"vinnow show RUN {asked}" in page.locator("#record").inner_text()
            page.locator("#record-close").click()
            assert page.evaluate("location.hash") == "#explorer"


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser, report):
    url, data = report
    with opened(browser, url) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == "#content"
        page.locator("#map-canvas").focus()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        told = set()
        for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
            told.add(page.locator("#map-hint").inner_text())
        assert len(told) == 3
        page.keyboard.press("Enter")
        page.locator("#record").wait_for()
        opened_id = page.evaluate("location.hash").split("=")[1]
        assert data["map"]["x"][data["id"].index(opened_id)] is not None
        page.keyboard.press("Escape")
        # whatever takes a hand has a name
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, select, input, canvas, [tabindex=\"0\"]')].filter((e) =>"
            " !e.closest('.modebar') && !e.getAttribute('aria-label') && !e.textContent.trim() && !e.labels?.length).length"
        )
        assert unnamed == 0


def test_a_click_on_the_map_opens_what_is_there(browser, report):
    url, data = report
    with opened(browser, url) as page:
        canvas = page.locator("#map-canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        i = next(n for n, x in enumerate(data["map"]["x"]) if x is not None)
        across, up = data["map"]["x"][i] / 65535, data["map"]["y"][i] / 65535
        spot = (12 + across * (box["width"] - 26), box["height"] - 14 - up * (box["height"] - 26))
        page.mouse.move(box["x"] + spot[0], box["y"] + spot[1])
        assert page.locator("#map-hint").text_content().split(": ", 1)[1].startswith(data["brief"][i][:20])
        page.mouse.click(box["x"] + spot[0], box["y"] + spot[1])
        page.locator("#record").wait_for()
        assert page.evaluate("location.hash") == f"#record={data['id'][i]}"


def test_text_can_be_read_in_the_light_and_in_the_dark(whole):
    grounds = {}
    for scheme in ("light", "dark"):
        whole.emulate_media(color_scheme=scheme)
        for asked in ("auto", "dark", "light"):
            assert whole.locator("#theme").inner_text() == f"Colours: {asked}"
            grounds[scheme, asked] = whole.evaluate("getComputedStyle(document.body).backgroundColor")
            if asked != "light" or scheme == "light":
                worst = whole.evaluate(CONTRAST)
                assert worst["ratio"] >= 4.5, worst
            # the page's own button turns it over, whatever the system wants
            whole.locator("#theme").click()
    whole.emulate_media(color_scheme="light")
    light, dark = grounds["light", "auto"], grounds["dark", "auto"]
    assert light != dark
    assert {grounds[s, "light"] for s in ("light", "dark")} == {light}
    assert {grounds[s, "dark"] for s in ("light", "dark")} == {dark}


def test_a_phone_scrolls_up_and_down_alone(whole):
    for width in (360, 390):
        whole.set_viewport_size({"width": width, "height": 800})
        assert whole.evaluate("document.documentElement.scrollWidth") <= width
        whole.locator("#explorer-cards a").first.click()
        whole.locator("#record").wait_for()
        assert whole.evaluate("document.getElementById('record').scrollWidth") <= width
        whole.keyboard.press("Escape")
    whole.set_viewport_size({"width": 1000, "height": 800})


def saved(page, button):
    with page.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_text(encoding="utf-8")


def test_data_of_tables_figures_and_map_can_be_saved(whole, report):
    page, (_, data) = whole, report
    name, text = saved(page, page.locator("#refused .downloads button", has_text="CSV").last)
    assert name.endswith(".csv")
    # no spreadsheet takes a pool's text for a formula
    assert list(csv.reader(io.StringIO(text)))[1] == ["duplicate", "0", "'=1+1"]
    choose = page.locator("#refused select")
    choose.select_option(label="image_missing")
    assert page.locator("#refused-1 tbody tr:visible").count() == 1
    _, text = saved(page, page.locator("#refused .downloads button", has_text="JSON").last)
    assert json.loads(text) == [{"reason": "image_missing", "input row": "2", "detail": "c"}]
    _, text = saved(page, page.locator("#map .downloads button", has_text="JSON"))
    placed = [i for i, x in enumerate(data["map"]["x"]) if x is not None]
    assert [row["sample_id"] for row in json.loads(text)] == [data["id"][i] for i in placed]
    _, text = saved(page, page.locator("#accuracy figure > .downloads button", has_text="JSON"))
    assert {"line", "x", "y"} == set(json.loads(text)[0])
    pick(page, "state", 1)
    _, text = saved(page, page.locator("#explorer .downloads button", has_text="JSON").first)
    assert {row["taken"] for row in json.loads(text)} == {1}
    # every table and figure has its two buttons, and so have the map and the gallery
    shown = page.locator("main .scroll > table:not(#record table), figure > .scroll > .chart").count()
    assert page.locator(".downloads").count() == shown + 2
