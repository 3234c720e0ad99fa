"""The page around the figures: it fits a phone, no part of it is empty, and it says which run it tells of."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reports import VOID, full_data
from vinnow.pipelines.report import build
from vinnow.pipelines.report.build import page

STYLE = re.sub(r"/\*.*?\*/", "", (Path(build.__file__).parent / "report.css").read_text(), flags=re.DOTALL)
# the narrowest phone, less the page's margins, in rem of 16 pixels
ROOM = (360 - 40) / 16
# what may be wider: it stands in a box of its own that scrolls
SCROLLED = {"table", "svg.chart", "td:has(.share)"}


class Tree(HTMLParser):
    """Keeps, of each element, its name, attributes, what it stands in, and the words in it."""

    def __init__(self, markup):
        super().__init__(convert_charrefs=True)
        self.open, self.elements = [], []
        self.feed(markup)

    def handle_starttag(self, name, attrs):
        one = {"name": name, "attrs": dict(attrs), "above": list(self.open), "words": ""}
        self.elements.append(one)
        if name not in VOID:
            self.open.append(one)

    def handle_endtag(self, name):
        self.open.pop()

    def handle_data(self, data):
        for one in self.open:
            one["words"] += data

    def all(self, *names):
        return [one for one in self.elements if one["name"] in names]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return Tree(page(full_data(tmp_path_factory.mktemp("page"))))


def rules():
    """Each selector of the style with its declarations."""
    for heads, body in re.findall(r"([^{}]+)\{([^{}]*)\}", STYLE):
        for head in heads.split(","):
            yield head.strip(), dict(re.findall(r"([\w-]+)\s*:\s*([^;]+)", body))


def test_nothing_is_wider_than_a_phone_but_what_scrolls_by_itself(tree):
    (viewport,) = [e["attrs"]["content"] for e in tree.all("meta") if e["attrs"].get("name") == "viewport"]
    assert "width=device-width" in viewport
    style = {}
    for head, found in rules():
        style.setdefault(head, {}).update(found)
        for name in ("width", "min-width", "grid-template-columns"):
            # what min() holds down to the whole of its box is never wider than that
            value = re.sub(r"min\(100%,[^)]*\)", "", found.get(name, ""))
            wide = [float(n) / (16 if unit == "px" else 1) for n, unit in re.findall(r"([\d.]+)(rem|em|px)", value)]
            assert head in SCROLLED or not wide or ("minmax" not in value and max(wide) <= ROOM), (head, value)
    assert style[".scroll"]["overflow-x"] == "auto"
    assert style["img"]["max-width"] == style["svg"]["max-width"] == "100%"
    # a long name without a space is broken, wherever it stands
    assert style["body"]["overflow-wrap"] == "anywhere"
    boxed = [e for e in tree.elements if e["name"] in ("table", "pre") or e["attrs"].get("class") == "chart"]
    assert len(boxed) >= 10
    for one in boxed:
        assert any("scroll" in a["attrs"].get("class", "").split() for a in one["above"]), one
    for one in tree.all("img"):
        assert float(one["attrs"]["width"]) <= ROOM * 16
