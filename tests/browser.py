"""A real browser for pages: Debian's Chromium, headless, driven by Playwright.

Where there is no Chromium the tests that need one are skipped and say so; with MASKMILL_BROWSER=required, as .ci/run
has it, they fail instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, Request, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",  # Chromium refuses its sandbox to root, and the pages are ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SERIOUS = ("serious", "critical")


@dataclass
class Opened:
    """A page in the browser, and what it did that it must not do.

    complaints  errors of its script and of the console, and refusals of its Content-Security-Policy
    requests    addresses that it asked for, without its own and data: URIs
    """

    page: Page
    complaints: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])

    def dismiss(self, dialog: Dialog) -> None:
        """A page of ours opens none; one that does ran a script that is not ours."""
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note(self, request: Request, address: str) -> None:
        if not request.url.startswith("data:") and request.url.split("#")[0] != address:
            self.requests.append(request.url)

    def findings(self) -> list[str]:
        """What axe-core finds serious or critical, with the elements."""
        violations = Axe().run(self.page).response["violations"]
        return [
            f"{each['id']}: {each['help']} at {[node['target'] for node in each['nodes']][:3]}"
            for each in violations
            if each["impact"] in SERIOUS
        ]


@dataclass
class Browsing:
    browser: Browser

    def open(self, path: Path, *, dark: bool = False, width: int = 1280, height: int = 900) -> Opened:
        """From disk, as a person would who clicks on the file. Its context ends with the browser.

        Without smooth scrolling, in which a click can meet what has moved on.
        """
        context = self.browser.new_context(
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": height},
            offline=True,
            reduced_motion="reduce",
        )
        opened = Opened(context.new_page())
        address = path.resolve().as_uri()
        opened.page.on("console", lambda said: opened.complaints.append(said.text) if said.type == "error" else None)
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("dialog", opened.dismiss)
        opened.page.on("request", lambda request: opened.note(request, address))
        opened.page.goto(address)
        return opened


@pytest.fixture(scope="module")
def browsing() -> Iterator[Browsing]:
    if CHROMIUM is None:
        if os.environ.get("MASKMILL_BROWSER") == "required":
            pytest.fail("there is no Chromium, and MASKMILL_BROWSER=required")
        pytest.skip("there is no Chromium on this machine; install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield Browsing(browser)
        finally:
            browser.close()
