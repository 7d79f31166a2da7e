"""Debian's chromium, driven by Playwright, with no network and a profile of its own."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Dialog, Page, expect, sync_playwright

# Beside the processes of the other tests a figure may take longer than Playwright's 5 seconds.
expect.set_options(timeout=60_000)

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDE = {"width": 1200, "height": 900}
PHONE = {"width": 360, "height": 740}
READY = "html[data-ready]"
"""Matches when a report has drawn all that was asked of it."""
PATIENCE_MS = 120_000
"""Other tests share the cores: a page of fourteen figures may take a minute."""


@contextmanager
def chromium(profile: Path) -> Iterator[BrowserContext]:
    """Yield a browser that is offline; skip the test if there is none, or fail it in CI."""
    if not Path(CHROMIUM).exists():
        missing = "no chromium: `apt-get install chromium` brings what tests the pages"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=list(ARGUMENTS),
            headless=True,
            offline=True,
            viewport=WIDE,  # pyright: ignore
        )
        context.set_default_timeout(PATIENCE_MS)
        yield context
        context.close()


@dataclass
class Opened:
    """A page and what happened in it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    """URLs that were asked for besides the file itself and its data: URIs."""
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, exceptions, and dialogs."""


def open_report(context: BrowserContext, path: Path) -> Opened:
    """Return a report's page once its figures are drawn."""
    opened = Opened(page=context.new_page())
    page, own = opened.page, path.resolve().as_uri()

    def on_request(url: str) -> None:
        if url.split("#")[0] != own and not url.startswith("data:"):
            opened.requests.append(url)

    def on_dialog(dialog: Dialog) -> None:
        opened.complaints.append(dialog.message)
        dialog.dismiss()

    page.on("request", lambda request: on_request(request.url))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("dialog", on_dialog)
    page.on(
        "console",
        lambda message: (
            opened.complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    page.goto(own)
    page.wait_for_selector(READY)
    return opened
