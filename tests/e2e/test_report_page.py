"""The report in a browser: offline, readable by all, safe, and its controls do what they say."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Page, expect

from jobs.query.select import run_query
from jobs.report.figures.style import DARK, LIGHT
from jobs.report.index import write_index
from jobs.report.write import write_report
from jobs.runs.trace_run import TraceRun
from tests.made_up.noises import make_swept_run
from tests.made_up.report_run import (
    CAPTIONS,
    FAILURE,
    HACK,
    OBJECTS,
    ODD_ATTRIBUTE,
    ODD_COMPONENT,
    STRONG,
    make_report_edit,
    make_report_run,
    make_report_sweep,
)
from tests.servers.browser import PHONE, READY, WIDE, Opened, chromium, open_report
from tests.servers.paper import pages_of

SECTIONS = (
    "answer", "network", "ranking", "timesteps", "tokens", "words", "depth", "controls", "overlaps",
    "images", "edits", "failures", "manifest",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return make_report_run(tmp_path_factory.mktemp("runs") / "<b onmouseover=alert(1)>run &amp;")


@pytest.fixture(scope="module")
def report(run: TraceRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    edit = make_report_edit(folder / HACK.format("edit")[:60].replace("/", ""))
    sweep = make_report_sweep(folder / "sweep")
    return write_report(run, [edit, sweep], folder / "report.html").path


@pytest.fixture(scope="module")
def opened(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield open_report(context, report)


@pytest.fixture
def page(opened: Opened) -> Page:
    """Return the page as it is first seen: wide, light, nothing chosen."""
    page = opened.page
    page.set_viewport_size(WIDE)  # pyright: ignore
    page.emulate_media(color_scheme="light", media="screen")
    page.evaluate("history.replaceState(null, '', location.pathname)")
    for name, value in (("attribute", "object"), ("part", ""), ("measure", "target"),
                        ("intervention", "restore")):  # fmt: skip
        page.select_option(f"select[name={name}]", value)
    page.wait_for_selector(READY)
    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    return page


def rgb(color: str) -> str:
    """Return a color as the browser says it."""
    return f"rgb({', '.join(str(int(color[n : n + 2], 16)) for n in (1, 3, 5))})"


def choose(page: Page, name: str, value: str) -> None:
    page.select_option(f"select[name={name}]", value)
    page.wait_for_selector(READY)


def test_it_opens_offline_and_asks_the_network_for_nothing(opened: Opened, page: Page) -> None:
    for section in SECTIONS:
        expect(page.locator(f"section#{section} h2")).to_be_visible()
    drawn = page.locator(".figure:not([hidden]) .plot svg")
    assert drawn.count() == page.locator(".figure:not([hidden])").count() == 14
    assert opened.requests == []
    assert opened.complaints == []
    # Vega stands in the page once, and the page may run nothing but its own two scripts.
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'sha256-" in policy
    assert page.locator("script").count() == 3


def test_texts_of_a_run_are_shown_as_text(opened: Opened, page: Page, run: TraceRun) -> None:
    choose(page, "attribute", ODD_ATTRIBUTE)
    text = page.locator("body").inner_text()
    for shown in (run.name, ODD_ATTRIBUTE, FAILURE, HACK.format("scorer"), HACK.format("matrix"),
                  HACK.format("sweep"), HACK.format("version")):  # fmt: skip
        assert shown in text
    quotes = [q.text_content() for q in page.locator(".strip q").all()]
    assert {caption for caption, _, _ in CAPTIONS[:4]} <= set(quotes)
    assert {caption for caption, _, _ in CAPTIONS[len(OBJECTS) :]} <= set(quotes)
    right_to_left = page.locator(".strip q", has_text="صورة").first
    assert right_to_left.evaluate("q => getComputedStyle(q).direction") == "rtl"
    names = page.locator("#ranking-text, #figure-ranking-text-encoder table").inner_text
    page.locator("#figure-ranking-text-encoder summary").click()
    assert ODD_COMPONENT in names()
    choose(page, "attribute", "object")
    expect(page.locator("#figure-tokens-text-encoder .plot")).to_contain_text("</script>")
    for element in ("img[src=x]", "b[onmouseover]", "[onerror]"):
        assert page.locator(element).count() == 0
    assert page.evaluate("window.hacked") is None
    assert opened.complaints == []


def test_filters_act_on_figures_and_tables_together(page: Page, run: TraceRun) -> None:
    figure = page.locator("#figure-ranking-denoiser")
    sql = """SELECT component, mean_ie FROM ranking WHERE part = 'denoiser' AND measure = 'caption'
      AND attribute = 'object' AND intervention = 'other-seed' ORDER BY mean_ie DESC"""
    rows = run_query(run, sql).to_pylist()
    before = figure.locator(".plot svg").inner_html()
    choose(page, "measure", "caption")
    choose(page, "intervention", "other-seed")
    figure.locator("summary").click()
    cells = figure.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells[1] == rows[0]["component"] == STRONG["object"]
    assert float(cells[4]) == pytest.approx(rows[0]["mean_ie"], abs=1e-4)
    assert figure.locator("tbody tr").count() == len(rows)
    assert "another seed" in (figure.locator(".plot").get_attribute("aria-label") or "")
    assert "another seed" in figure.locator("figcaption").inner_text()
    assert figure.locator(".plot svg").inner_html() != before
    # Points are placed by their values: the first row's is the furthest right.
    x = figure.locator(".plot .mark-symbol.role-mark path").evaluate_all(
        "paths => paths.map(path => path.getBoundingClientRect().x)"
    )
    assert x == sorted(x, reverse=True)
    figure.locator("summary").click()
    choose(page, "part", "text-encoder")
    expect(figure).to_be_hidden()
    expect(page.locator("#figure-ranking-text-encoder")).to_be_visible()
    assert page.locator(".strip:visible").count() == 4


def test_a_run_of_several_noises_has_a_filter_of_them(page: Page, tmp_path: Path) -> None:
    expect(page.locator("select[name=noise_sigmas]")).to_be_hidden()
    swept = make_swept_run(tmp_path / "swept")
    report = write_report(swept, [], tmp_path / "swept.html").path
    other = page.context.new_page()
    other.goto(f"{report.as_uri()}#noise_sigmas=0.5")
    other.wait_for_selector(READY)
    figure = other.locator("#figure-ranking-text-encoder")
    for noise in ("0.5", "3"):
        assert other.locator("select[name=noise_sigmas]").input_value() == noise
        sql = f"""SELECT mean_ie FROM ranking WHERE attribute = 'object'
          AND intervention = 'restore' AND noise_sigmas = {noise} ORDER BY mean_ie DESC"""
        means = run_query(swept, sql)["mean_ie"].to_pylist()
        rows = figure.locator("tbody tr").all()
        shown = [float(row.locator("td").nth(4).text_content() or "") for row in rows]
        assert shown == pytest.approx(means, abs=1e-4)
        assert f"noise {noise}" in (figure.locator("figcaption").text_content() or "")
        choose(other, "noise_sigmas", "3")
    other.close()


def test_the_first_card_answers_for_the_trace_and_for_each_edit(page: Page) -> None:
    first = page.locator(".card").first
    text = first.inner_text()
    assert "object: up 0 resnet 0" in text
    assert "of 3 attributes" in text
    assert "5 % of the images of 2 concepts still show them, 85 % of what is kept is still" in text
    assert "Of 3 edits 2 are beaten by no other" in text
    first.locator("a").first.click()
    expect(page.locator("section#edits h2")).to_be_in_viewport()


def test_a_card_chooses_its_attribute(page: Page) -> None:
    page.locator(".card button", has_text="right-to-left").click()
    page.wait_for_selector(READY)
    assert page.locator("select[name=attribute]").input_value() == "right-to-left"
    caption = page.locator("#figure-network-denoiser figcaption")
    assert caption.inner_text().startswith("right-to-left")


def test_the_address_keeps_the_filters(page: Page) -> None:
    assert "attribute" not in page.url
    choose(page, "attribute", ODD_ATTRIBUTE)
    choose(page, "part", "text-encoder")
    chosen = {"attribute": [ODD_ATTRIBUTE], "part": ["text-encoder"]}
    assert parse_qs(urlsplit(page.url).fragment) == chosen
    page.locator("nav a", has_text="Ranking").click()
    page.wait_for_selector(READY)
    page.reload()
    page.wait_for_selector(READY)
    assert page.locator("select[name=attribute]").input_value() == ODD_ATTRIBUTE
    assert page.locator("select[name=part]").input_value() == "text-encoder"
    expect(page.locator("#figure-ranking-denoiser")).to_be_hidden()
    page.evaluate("location.hash = 'attribute=no+such&measure=caption&at=<img src=x>'")
    page.wait_for_selector(READY)
    expect(page.locator("select[name=measure]")).to_have_value("caption")
    # What the run does not have leaves the filter as it was.
    assert page.locator("select[name=attribute]").input_value() == ODD_ATTRIBUTE


def test_all_rows_of_a_figure_are_copied_as_csv(page: Page, run: TraceRun) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    figure = page.locator("#figure-ranking-text-encoder")
    choose(page, "attribute", ODD_ATTRIBUTE)
    figure.get_by_role("button", name="Copy as CSV").click()
    expect(figure.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    rows = list(csv.DictReader(io.StringIO(copied)))
    sql = """SELECT component, token, mean_ie FROM ranking WHERE part = 'text-encoder'
      AND measure = 'target' AND attribute = $attribute AND intervention = 'restore'
      ORDER BY mean_ie DESC"""
    expected = run_query(run, sql, {"attribute": ODD_ATTRIBUTE}).to_pylist()
    assert len(rows) == len(expected)
    assert {row["component"] for row in rows} == {row["component"] for row in expected}
    means = [float(row["mean"]) for row in rows]
    assert means == pytest.approx([row["mean_ie"] for row in expected], rel=1e-5)


def test_a_table_is_copied_as_csv(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#failures").get_by_role("button", name="Copy as CSV").click()
    expect(page.locator("#failures").get_by_role("button", name="Copied")).to_be_visible()
    heading, *rows = csv.reader(io.StringIO(page.evaluate("navigator.clipboard.readText()")))
    assert heading == ["unit", "error", "message"]
    assert [row[1:] for row in rows] == [["OSError", FAILURE]]


def test_a_figure_is_saved_as_svg(page: Page, tmp_path: Path) -> None:
    figure = page.locator("#figure-tokens-text-encoder")
    with page.expect_download() as download:
        figure.get_by_role("button", name="Save SVG").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "tokens-text-encoder.svg"
    drawn = ElementTree.fromstring(path.read_text())
    assert drawn.tag.endswith("svg")
    texts = [text for element in drawn.iter() if (text := element.text)]
    assert any("</script>" in text for text in texts)
    assert not [element for element in drawn.iter() if element.tag.endswith(("script", "img"))]


def test_the_table_of_answers_fits_the_page(page: Page) -> None:
    table = page.locator("#answer .scroll")
    assert table.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_hovering_shows_an_effect_with_its_interval(page: Page) -> None:
    for figure, mark in (("network-denoiser", "rect"), ("ranking-denoiser", "symbol"),
                         ("timesteps-denoiser", "rect")):  # fmt: skip
        plot = page.locator(f"#figure-{figure} .plot")
        plot.scroll_into_view_if_needed()
        marks = plot.locator(f".mark-{mark}.role-mark path[aria-label*='{STRONG['object']}']")
        box = marks.last.bounding_box()
        assert box is not None
        page.mouse.move(0, 0)
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
        tooltip = page.locator("#vg-tooltip-element.visible")
        expect(tooltip).to_contain_text(STRONG["object"])
        expect(tooltip).to_contain_text("95 % interval")
        expect(tooltip).to_contain_text(" to +")
    page.mouse.move(0, 0)


def test_the_keyboard_reaches_every_control(page: Page) -> None:
    seen: list[str] = []
    describe = """() => { const e = document.activeElement, s = getComputedStyle(e);
      return [e.name || e.className || e.tagName, s.outlineStyle !== 'none']; }"""
    page.reload()  # which puts the focus before the first element
    page.wait_for_selector(READY)
    for _ in range(34):
        page.keyboard.press("Tab")
        name, has_focus_ring = page.evaluate(describe)
        assert has_focus_ring, name
        seen.append(name)
    assert seen[0] == "skip"
    for control in ("attribute", "part", "measure", "intervention", "plot vega-embed", "SUMMARY"):
        assert control in seen
    for select in page.locator("select").all():
        assert select.evaluate("s => s.labels.length") == 1
    page.locator("select[name=attribute]").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(READY)
    caption = page.locator("#figure-network-denoiser figcaption").inner_text()
    assert caption.startswith(ODD_ATTRIBUTE)


def test_every_figure_and_image_has_words(page: Page) -> None:
    for plot in page.locator(".figure:visible .plot").all():
        words = plot.get_attribute("aria-label") or ""
        assert len(words.split()) > 4, words
    for image in page.locator("img").all():
        assert len(image.get_attribute("alt") or "") > 10


FAINT = """() => {
  const shares = (css) => css.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const [r, g, b, alpha = 1] = shares(getComputedStyle(element).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const seen = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(".role-mark, script, noscript, option")) continue;
    const style = getComputedStyle(element);
    const ink = element.closest("svg") ? style.fill : style.color;
    const both = [luminance(shares(ink)), luminance(ground(element))].sort((a, b) => a - b);
    seen.push([(both[1] + 0.05) / (both[0] + 0.05), walker.currentNode.data.trim()]);
  }
  return seen;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    surface = rgb((LIGHT if scheme == "light" else DARK).surface)
    expect(page.locator(f"#figure-pareto-1 .plot svg[style*='{surface}']")).to_have_count(1)
    page.wait_for_selector(READY)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    seen = page.evaluate(FAINT)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = false; })")
    assert len(seen) > 500
    assert [words for ratio, words in seen if ratio < 4.5] == []


def test_the_index_is_searched_and_leads_to_the_report(
    run: TraceRun, tmp_path: Path, opened: Opened
) -> None:
    runs = Path(run.location).parent
    make_report_edit(tmp_path / "edits" / "cats")
    write_report(run, [], Path(run.location, "report.html"))
    write_index(runs, tmp_path / "edits", tmp_path / "reports.html")
    page = opened.page.context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((tmp_path / "reports.html").as_uri())
    entries = page.locator(".entry:visible")
    assert entries.count() == 2
    page.get_by_label("Search").fill("CONCEPTS cat")
    expect(page.locator("#shown")).to_have_text("1 of 2")
    expect(entries).to_contain_text("5 % of the images of 2 concepts")
    page.get_by_label("Search").fill("no such run")
    assert entries.count() == 0
    page.get_by_label("Search").fill("")
    page.get_by_role("link", name="report").click()
    page.wait_for_selector(READY)
    assert page.locator("h1").inner_text() == run.name
    assert complaints == []
    page.close()


def test_a_phone_scrolls_down_only(page: Page) -> None:
    page.set_viewport_size(PHONE)  # pyright: ignore
    page.wait_for_timeout(300)  # the page waits for the end of a resize
    page.wait_for_selector(READY)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    box = page.locator("#figure-ranking-denoiser .plot svg").bounding_box()
    assert box is not None
    assert box["width"] <= PHONE["width"]
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = false; })")
    page.set_viewport_size(WIDE)  # pyright: ignore
    page.wait_for_timeout(300)


def test_dark_mode_darkens_page_and_figures(page: Page) -> None:
    ground = "svg => svg.style.backgroundColor"
    svg = page.locator("#figure-ranking-denoiser .plot svg")
    assert svg.evaluate(ground) == rgb(LIGHT.surface)
    page.emulate_media(color_scheme="dark")
    dark = f"svg[style*='{rgb(DARK.surface)}']"
    expect(page.locator(f"#figure-pareto-1 .plot {dark}")).to_have_count(1)
    page.wait_for_selector(READY)
    assert svg.evaluate(ground) == rgb(DARK.surface)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 21)"
    # On paper the same page is light, whatever the screen is.
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.locator("#figure-ranking-denoiser .plot")).to_be_hidden()
    paper = page.locator("#figure-ranking-denoiser .paper svg")
    expect(paper).to_be_visible()
    assert paper.evaluate(ground) == rgb(LIGHT.surface)
    expect(page.locator("select[name=attribute]")).to_be_hidden()
    expect(page.locator("button").first).to_be_hidden()
    written = "Attribute: object; Part: both; Measure: target; Intervention: restored"
    expect(page.locator("#choice")).to_have_text(written)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_paper_has_every_attribute_and_no_heading_or_page_stands_empty(
    opened: Opened, page: Page
) -> None:
    choose(page, "attribute", ODD_ATTRIBUTE)
    choose(page, "part", "text-encoder")
    page.emulate_media(media="print")  # which a page with an emulated screen does not take itself
    paper = page.locator("#ranking .figure:visible .paper svg")
    points = "all => all.map(one => one.ariaLabel).sort()"
    before = paper.locator("path[aria-label]").evaluate_all(points)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(set(paper.evaluate_all("all => all.map(one => one.innerHTML)"))) == 3
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    headings = {_dense(text) for text in page.locator("h2, h3").all_text_contents()}
    pages = pages_of(page.pdf(format="A4", print_background=True))
    assert 10 <= len(pages) <= 30
    assert [one.text for one in pages if one.inked < 0.3] == []
    assert [one.text for one in pages if _dense(one.last_line) in headings] == []
    text = _dense(" ".join(one.text for one in pages))
    chosen = (
        f"Attribute: object, {ODD_ATTRIBUTE}, right-to-left; Part: text encoder; Measure: target"
    )
    assert _dense(chosen) in text
    # Rankings, tokens and words of every attribute, each with its finding, and their images.
    for attribute in ("object", ODD_ATTRIBUTE, "right-to-left"):
        assert text.count(_dense(f"{attribute}, text encoder, restored, scored against")) >= 4
    assert _dense(", denoiser, restored, scored") not in text
    # Afterwards the page is as it was.
    assert paper.locator("path[aria-label]").evaluate_all(points) == before
    page.emulate_media(media="screen")
    assert page.locator(".printed, [data-opened]").count() == 0
    assert page.locator(".strip:visible").count() == 3
    assert opened.complaints == []


def _dense(text: str) -> str:
    """Return a text without blanks, which lines of paper break elsewhere."""
    return "".join(text.split())
