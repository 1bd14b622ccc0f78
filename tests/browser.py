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
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # at run time it is imported where it is used: every process collects these tests, and few run them
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Error, Page, Request

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

    def findings(self) -> list[str]:
        """What axe-core finds serious or critical, with the elements."""
        from axe_playwright_python.sync_playwright import Axe

        violations = Axe().run(self.page).response["violations"]
        return [
            f"{each['id']}: {each['help']} at {[node['target'] for node in each['nodes']][:3]}"
            for each in violations
            if each["impact"] in SERIOUS
        ]


class Browsing:
    """One window, in which pages are opened one after the other: a new one costs a second of a core.

    Without smooth scrolling, in which a click can meet what has moved on.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self._window = browser.new_context(offline=True, reduced_motion="reduce").new_page()
        self._opened, self._address = Opened(self._window), ""
        self._window.on("console", self._read)
        self._window.on("pageerror", self._note_error)
        self._window.on("dialog", self._dismiss)
        self._window.on("request", self._note_request)

    def open(self, path: Path, *, dark: bool = False, width: int = 1280, height: int = 900) -> Opened:
        """From disk, as a person would who clicks on the file. What was open before is gone."""
        self._window.goto("about:blank")
        self._window.emulate_media(color_scheme="dark" if dark else "light")
        self._window.set_viewport_size({"width": width, "height": height})
        self._window.mouse.move(0, 0)
        self._opened, self._address = Opened(self._window), path.resolve().as_uri()
        self._window.goto(self._address)
        return self._opened

    def _read(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self._opened.complaints.append(said.text)

    def _note_error(self, error: Error) -> None:
        self._opened.complaints.append(str(error))

    def _dismiss(self, dialog: Dialog) -> None:
        """A page of ours opens none; one that does ran a script that is not ours."""
        self._opened.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith("data:") and request.url.split("#")[0] != self._address:
            self._opened.requests.append(request.url)


def expect(found: Any, message: str | None = None) -> Any:
    """Playwright's, imported when it is first called."""
    from playwright.sync_api import expect

    return expect(found, message)


@pytest.fixture(scope="module")
def browsing() -> Iterator[Browsing]:
    """One of each module: while Playwright is there, nothing else can begin a loop of asyncio."""
    if CHROMIUM is None:
        if os.environ.get("MASKMILL_BROWSER") == "required":
            pytest.fail("there is no Chromium, and MASKMILL_BROWSER=required")
        pytest.skip("there is no Chromium on this machine; install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield Browsing(browser)
        finally:
            browser.close()
