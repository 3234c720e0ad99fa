"""Pictures of pages for docs/, made by a headless Chromium of the system: `shot(url, path, width, dark)`.

`python benchmarks/screenshots.py RUN` makes docs/images/report-*.png of a finished run's report. Pictures have a palette of
256 colours and at most 200 KB; a larger one is an error.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
NAMES = ("chromium", "chromium-browser", "google-chrome")
LARGEST, HEIGHT = 200_000, 900


def browser_path() -> str:
    """Return where the system's Chromium is; an error says how to get one."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise SystemExit("no Chromium here: apt-get install chromium fonts-dejavu")


@contextmanager
def chromium() -> "Iterator[Browser]":
    """Start a headless Chromium; it ends with the body."""
    from playwright.sync_api import sync_playwright

    # a browser has no sandbox of its own where root runs it
    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=browser_path(), chromium_sandbox=os.geteuid() != 0)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: "Browser", url: str, width: int, dark: bool = False, height: int = HEIGHT) -> "Iterator[Page]":
    """Open a page at a width in pixels, in dark mode or not, as one that has asked for less motion."""
    size = {"width": width, "height": height}
    context = browser.new_context(
        viewport=size, color_scheme="dark" if dark else "light", reduced_motion="reduce", has_touch=width < 600
    )
    try:
        page = context.new_page()
        page.goto(url)
        yield page
    finally:
        context.close()


def shot(url: str, path: str | Path, width: int, dark: bool = False, wait: str = "", part: str = "") -> Path:
    """Write a picture of a page; `wait`: a CSS selector that must be there first, `part`: of this element alone."""
    with chromium() as browser, opened(browser, url, width, dark) as page:
        if wait:
            page.wait_for_selector(wait)
        return save(page, path, part)


def save(page: "Page", path: str | Path, part: str = "") -> Path:
    """Write what a page shows now (of `part`, a CSS selector, alone) with a palette, which is a third of the bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    (page.locator(part).first if part else page).screenshot(path=str(path))
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"{path} has {path.stat().st_size:,} bytes, more than {LARGEST:,}: show less of the page.")
    return path


def report_pictures(run: Path) -> list[Path]:
    """Picture a finished run's report: its top, its map in the dark, its records filtered, one on a phone."""
    url = (run / "report.html").resolve().as_uri()
    pictures = []
    with chromium() as browser:
        with opened(browser, url, 1100) as page:
            pictures.append(save(page, IMAGES / "report-top.png"))
            page.locator("#explorer-state").select_option("taken")
            show(page, "explorer")
            pictures.append(save(page, IMAGES / "report-records.png"))
        with opened(browser, url, 1100, dark=True) as page:
            show(page, "map" if page.locator("#map").count() else "overlap")
            pictures.append(save(page, IMAGES / "report-dark.png"))
        with opened(browser, url, 390, height=780) as page:
            page.locator("#explorer-cards a").first.click()
            page.locator("#record").wait_for()
            pictures.append(save(page, IMAGES / "report-phone.png"))
    return pictures


def show(page: "Page", section: str) -> None:
    """Scroll to a section of a report, and wait until what it draws is drawn."""
    page.evaluate("(id) => document.getElementById(id).scrollIntoView()", section)
    page.wait_for_timeout(300)


def main() -> None:
    """Make the pictures of a run's report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run's folder, with its report.html")
    for path in report_pictures(parser.parse_args().run):
        sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
