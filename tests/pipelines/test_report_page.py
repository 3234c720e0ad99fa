"""The page around the figures: it fits a phone, no part of it is empty, and it says which run it tells of."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reports import VOID, full_data, trial
from vinnow.pipelines.report import build
from vinnow.pipelines.report.build import page
from vinnow.pipelines.report.data import Gallery, ReportData
from vinnow.pipelines.report.sections import SECTIONS

STYLE = re.sub(r"/\*.*?\*/", "", (Path(build.__file__).parent / "report.css").read_text(), flags=re.DOTALL)
# the narrowest phone, less the page's margins, in rem of 16 pixels
ROOM = (360 - 40) / 16
# what may be wider: it stands in a box of its own that scrolls
SCROLLED = {"table", ".chart", "td:has(.share)"}


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
    for head, declarations in rules():
        style.setdefault(head, {}).update(declarations)
        for name in ("width", "min-width", "grid-template-columns"):
            # what min() holds down to the whole of its box is never wider than that
            value = re.sub(r"min\(100%,[^)]*\)", "", declarations.get(name, ""))
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


PARTS = (
    "header",
    "nav",
    "main",
    "section",
    "article",
    "ul",
    "li",
    "dl",
    "dd",
    "tbody",
    "tr",
    "figure",
    "details",
    "figcaption",
)


def test_no_part_of_a_page_is_empty(tree):
    nothing = Tree(page(ReportData()))
    # random alone, once: nothing to compare, nothing to find
    alone = Tree(page(ReportData(trials=[trial("random", "10%", 9, 0.5)], galleries=[Gallery("any", "9", [], [])])))
    for one in (tree, nothing, alone):
        for part in one.all(*PARTS):
            assert part["words"].strip(), part
        # what a heading stands over is not another heading of its kind, or the end
        order = [e for e in one.elements if re.fullmatch("h[1-6]|p|div|ul|dl|figure|article|section", e["name"])]
        for here, after in zip(order, [*order[1:], None], strict=True):
            if here["name"][0] == "h":
                assert after is not None
                assert after["name"] > here["name"] or after["name"][0] != "h", here
        sections = [e["attrs"]["id"] for e in one.all("section")]
        assert [e["attrs"]["href"][1:] for e in one.all("a")] == ["content", *sections]
    assert [e["attrs"]["id"] for e in nothing.all("section")] == ["absent"]
    assert len(nothing.all("li")) == 1 + len(SECTIONS)
    assert {"headline", "accuracy", "pictures", "absent"} == {e["attrs"]["id"] for e in alone.all("section")}
    assert "absent" not in [e["attrs"]["id"] for e in tree.all("section")]
