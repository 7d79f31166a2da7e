"""The documentation's site: builds without a warning, and works from disk without any network."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from docs.pages import linked, on_page_markdown
from docs.reference import PAGE, reference
from engine.model.registry import EMBEDDED
from tests.servers.browser import chromium

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(
    r"""(?:src|srcset|data-src)\s*=\s*["']?(?:https?:)?//|@import|url\(["']?(?:https?:)?//"""
)
"""What makes a browser ask another host when a page or a style is opened."""
SHEET = re.compile(
    r'<link[^>]+rel="?(?:stylesheet|preload|preconnect|icon)[^>]+href="?(?:https?:)?//'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a site that was built with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_reference_of_commands_is_current() -> None:
    assert PAGE.read_text() == reference(), "run `make docs`"


def test_every_page_is_in_the_site_and_none_asks_another_host(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"index", "emoji-sd"}
    assert pages <= {path.stem for path in site.glob("*.html")}
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = path.read_text()
        assert not FETCHED.search(text), path
        assert not SHEET.search(text), path
    assert not list(site.rglob("*.py"))


def test_tables_of_the_pages_are_tables(site: Path) -> None:
    for path in site.glob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"<p>\s*\||\|---", text), path
    assert (site / "tracing.html").read_text().count("<table>") >= 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """Yield a headless Chromium."""
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


def test_pages_open_from_disk_without_errors_and_can_be_searched(
    site: Path, browser: BrowserContext
) -> None:
    page = browser.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name in ("index", "tracing", "method", "cli"):
        page.goto(f"file://{site}/{name}.html")
        assert page.locator("h1").first.inner_text()
    page.goto(f"file://{site}/index.html")
    for image in page.locator("article img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    page.keyboard.press("/")
    page.keyboard.type("lockstep")
    page.locator(".md-search-result__link").first.wait_for(timeout=10_000)
    assert not errors
    assert asked
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked


def test_links_of_the_readme_lead_to_the_sites_pages() -> None:
    text = "[a](docs/tracing.md#runs) [b](engine/reference/emoji-sd/README.md) [c](https://x.org/y)"
    assert linked(text, "README.md") == "[a](tracing.md#runs) [b](emoji-sd.md) [c](https://x.org/y)"
    assert (
        linked('<img src="docs/before_after.png">', "README.md") == '<img src="before_after.png">'
    )
    card = "![samples](samples.png)"
    for name in EMBEDDED:
        shown = linked(card, f"engine/reference/{name}/README.md")
        assert shown == f"![samples]({name}.png)"


def test_lists_and_tables_get_an_empty_line_before_them_but_not_inside_code() -> None:
    code = "\n```text\nwords\n- no\n```\n"
    text = f"words:\n- one\n- two\n  more\n- three\n{code}words\n| a |\n|---|\n"
    spaced = f"words:\n\n- one\n- two\n  more\n- three\n{code}words\n\n| a |\n|---|\n"
    assert on_page_markdown(text) == spaced
