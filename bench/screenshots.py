"""Pictures of reports for the docs: python -m bench.screenshots RUN --controls RUN --tokens RUN.

Writes the reports of real runs and takes pictures of them in chromium, which is opened as the tests
open it: docs/images/report-*.png.
"""

import argparse
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from cli.options.runs import run_location
from jobs.report.write import write_report
from jobs.runs.trace_run import open_run
from tests.servers.browser import PHONE, READY, WIDE, chromium, open_report

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LARGEST = 300_000
"""Bytes of a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture of a report."""

    name: str
    target: str
    """A selector of what is in the picture, from its top on."""
    width: int = WIDE["width"]
    height: int = 1000
    scheme: str = "light"
    media: str = "screen"


OF_RUN = (
    Shot(name="light", target="header.top"),
    Shot(name="dark", target="#filters", scheme="dark", height=1150),
    Shot(name="phone", target="#network", width=PHONE["width"], height=900),
    Shot(name="paper", target="header.top", width=794, height=1123, media="print"),
    Shot(name="images", target="#images", height=700),
)
OF_CONTROLS = (Shot(name="controls", target="#controls", height=900),)
OF_TOKENS = (Shot(name="tokens", target="#tokens", height=560),)


def take(page: Page, shot: Shot, attribute: str) -> None:
    """Write one picture."""
    page.emulate_media(color_scheme=shot.scheme, media=shot.media)  # pyright: ignore
    page.set_viewport_size({"width": shot.width, "height": shot.height})
    page.reload()
    page.wait_for_selector(READY)
    if shot.media == "screen":
        page.select_option("select[name=attribute]", attribute)
        page.wait_for_selector(READY)
    box = page.locator(shot.target).bounding_box()
    assert box is not None, f"{shot.target} is not in the report"
    clip = {"x": 0, "y": max(0.0, box["y"] - 16), "width": shot.width, "height": shot.height}
    content = page.screenshot(full_page=True, clip=clip)  # pyright: ignore
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    path = IMAGES / f"report-{shot.name}.png"
    picture.save(path, optimize=True)
    size = path.stat().st_size
    assert size <= LARGEST, f"{path} has {size} bytes, more than {LARGEST}"
    print(f"{path.name}: {picture.width} x {picture.height}, {size // 1000} kB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("run", help="run with kept images")
    parser.add_argument("--controls", help="run with controls")
    parser.add_argument("--tokens", help="run of several tokens")
    parser.add_argument("--edit", type=Path, action="append", default=[])
    parser.add_argument("--attribute", default="object")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    asked = ((options.run, OF_RUN), (options.controls, OF_CONTROLS), (options.tokens, OF_TOKENS))
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder, "profile")) as context:
        for run, shots in asked:
            if run is None:
                continue
            opened = open_run(run_location(run))
            path = write_report(opened, options.edit, Path(folder, "report.html")).path
            page = open_report(context, path).page
            for shot in shots:
                take(page, shot, options.attribute)


if __name__ == "__main__":
    main()
