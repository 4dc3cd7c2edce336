"""A headless Chromium for tests of pages."""

import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives a browser")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def serious_issues(page):
    """The names of what axe-core holds against a page; its context must bypass the page's CSP."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{issue['id']}: {node['target']}"
        for issue in found
        if issue["impact"] in ("serious", "critical")
        for node in issue["nodes"]
    ]


def shot(page, name):
    """Save a picture of the page for a person to look at, if a folder for them is given."""
    if folder := os.environ.get("OMNIQA_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)
