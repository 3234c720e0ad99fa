"""The system's Chromium, headless, driven by Playwright: pages that keep what went wrong in them."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Watched:
    """What a page said and asked for: errors of its scripts and its console, and addresses that were requested."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def chromium():
    """One headless browser; without one the test is skipped, and in CI it fails."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        why = "no Chromium here: apt-get install chromium fonts-dejavu-core"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as library:
        # a browser that root runs has no sandbox of its own
        browser = library.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser, url, width=1000, dark=False):
    """Open a page, offline; at the end it has had no error and asked for nothing but itself."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce", offline=True
    )
    context.set_default_timeout(20_000)
    page, seen = context.new_page(), Watched()
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda told: seen.errors.append(told.text) if told.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: (seen.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: seen.requests.append(request.url))
    try:
        page.goto(url)
        yield page
        assert seen.errors == []
        # blob: what the page makes itself, to be saved
        asked = {u.split("#")[0] for u in seen.requests if not u.startswith(("data:", "blob:"))}
        assert asked == {url.split("#")[0]}
    finally:
        context.close()
