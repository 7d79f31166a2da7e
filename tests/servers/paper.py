"""Pages of paper: what a reader of a PDF sees on each."""

from dataclasses import dataclass

import pypdfium2
from pypdfium2 import PdfPage, PdfTextPage

WHITE = 250
"""The least value of a color of paper without ink, of 255."""
LINE_POINTS = 3.0
"""Characters whose lower ends differ by less are of one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperPage:
    """One page."""

    text: str
    last_line: str
    """The line nearest to the lower end."""
    inked: float
    """The share of the page's height above its lowest ink, 0 to 1."""


def pages_of(content: bytes) -> list[PaperPage]:
    """Return the pages of a PDF."""
    document = pypdfium2.PdfDocument(content)
    pages = [_read(page) for page in document]
    document.close()
    return pages


def _read(page: PdfPage) -> PaperPage:
    image = page.render().to_numpy()
    rows = (image.min(axis=(1, 2)) < WHITE).nonzero()[0]
    words = page.get_textpage()
    read = PaperPage(
        text=words.get_text_range(),
        last_line=_last_line(words),
        inked=float(rows.max() + 1) / image.shape[0] if len(rows) else 0.0,
    )
    words.close()
    page.close()
    return read


def _last_line(words: PdfTextPage) -> str:
    letters = [
        (bottom, left, words.get_text_range(number, 1))
        for number in range(words.count_chars())
        for left, bottom, _, top in [words.get_charbox(number)]
        if top > bottom
    ]
    lowest = min((bottom for bottom, _, _ in letters), default=0.0)
    line = sorted((x, text) for bottom, x, text in letters if bottom - lowest < LINE_POINTS)
    return "".join(text for _, text in line)
