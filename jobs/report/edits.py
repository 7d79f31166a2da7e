"""The edits of a report: what each erases and keeps, its images, and a sweep's trades."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from engine.files import is_file, read_json_file
from jobs.editing.manifest import BEFORE_AFTER, MANIFEST, read_manifest
from jobs.report.figures.edits import GROUPS
from jobs.report.images import picture_uri
from jobs.runs.png import CorruptImage
from schemas.documents import is_mapping, parsed
from schemas.errors import ConceptError
from schemas.evaluation import PICTURES, SUMMARY
from schemas.manifest import EditManifest

SWEEP = "sweep.json"
ResultRow = dict[str, bool | int | Annotated[float, Field(allow_inf_nan=False)] | str | None]
"""The numbers and names of one group, or of one edit of a sweep."""
RESULT_FIELDS = ("group", "names", "images", "before", "after", "of_right", "as_replacement")
TRADE_FIELDS = (
    "edit", "is_best", "still_recognised_of_right", "kept_of_right", "harmonic_of_right", "cmmd",
)  # fmt: skip
"""The fields of each row that a page shows."""

CONCEPTS = 30
"""The number of an edit's concepts that a page lists."""
ORDER = ("still_recognised", "kept", "concept", "paraphrase", "position")
"""Groups whose pictures come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A grid of images, before and after."""

    source: str
    title: str
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSection:
    """The section of a report about one folder of `--edit`."""

    name: str
    manifest: EditManifest | None
    """None for a sweep."""
    results: tuple[dict[str, Any], ...]
    """The rows of its evaluation that have images; empty if it has no evaluation."""
    trades: tuple[dict[str, Any], ...]
    """The edits of a sweep; empty for a single edit."""
    pictures: tuple[Picture, ...]
    sentence: str
    headline: str
    """The result in a few words, for the page's first card."""


def edit_sections(folders: Sequence[Path]) -> list[EditSection]:
    """Return the sections of folders; ConceptError: one is neither an edit nor a sweep, or
    damaged."""
    counts = Counter(folder.resolve().name for folder in folders)
    return [
        _section(
            folder, folder.resolve().name if counts[folder.resolve().name] == 1 else str(folder)
        )
        for folder in folders
    ]


def _section(folder: Path, name: str) -> EditSection:
    if is_file(folder / SWEEP):
        return _sweep(folder, name)
    if not is_file(folder / MANIFEST):
        raise ConceptError(
            f"{folder} is not an edit folder, nor a sweep: no {MANIFEST}, no {SWEEP}"
        )
    manifest = read_manifest(folder)
    results = _results(folder)
    sentence = _edit_sentence(results, folder)
    return EditSection(
        name=name,
        manifest=manifest,
        results=tuple(r for r in results if r["images"] or r["group"] in GROUPS),
        trades=(),
        pictures=tuple(_pictures(folder, manifest)),
        sentence=sentence,
        headline=_headline(results) or sentence,
    )


def edit_headline(folder: Path) -> str:
    """Return the result of an edit or a sweep in a few words; ConceptError as `edit_sections`."""
    if is_file(folder / SWEEP):
        return _sweep(folder, folder.name).headline
    read_manifest(folder)
    results = _results(folder)
    return _headline(results) or _edit_sentence(results, folder)


def _results(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return the rows of an edit's evaluation; none if it has none."""
    summary = folder / "evaluation" / SUMMARY
    return _rows(summary, "results") if is_file(summary) else ()


def _sweep(folder: Path, name: str) -> EditSection:
    trades = _rows(folder / SWEEP, None)
    best = [trade["edit"] for trade in trades if trade["is_best"]]
    sentence = (
        f"Of {len(trades)} edits {len(best)} are beaten by no other: "
        f"{', '.join(best[:8])}{' and more' if len(best) > 8 else ''}."
    )
    return EditSection(
        name=name,
        manifest=None,
        results=(),
        trades=trades,
        pictures=(),
        sentence=sentence,
        headline=sentence,
    )


def _rows(path: Path, key: str | None) -> tuple[dict[str, Any], ...]:
    """Return the rows of a file of results; ConceptError: a field that a page shows is missing."""
    document = read_json_file(path, error=ConceptError)
    rows = document.get(key) if key and is_mapping(document) else document
    name = f"{path} is damaged, evaluate the edit again"
    checked = parsed(list[ResultRow], rows, name, error=ConceptError)
    fields = TRADE_FIELDS if key is None else RESULT_FIELDS
    for row in checked:
        if missing := [name for name in fields if name not in row]:
            raise ConceptError(f"{path} has no {missing[0]!r}: evaluate the edit again")
    return tuple(checked)


def _edit_sentence(results: Sequence[dict[str, Any]], folder: Path) -> str:
    by_group = {row["group"]: row for row in results}
    still_recognised, kept, mean = (
        by_group.get(group) for group in ("still_recognised", "kept", "harmonic mean")
    )
    if not results:
        return (
            f"Not evaluated yet: `dqf edit evaluate {shlex.quote(str(folder))}` measures what it "
            "erases and keeps."
        )
    parts: list[str] = []
    if still_recognised and still_recognised["of_right"] is not None:
        parts.append(f"{share_text(still_recognised)} of the concepts' images still show them")
    if kept and kept["of_right"] is not None:
        parts.append(f"{share_text(kept)} of what is kept is still recognized")
    if mean and mean["of_right"] is not None:
        parts.append(f"the harmonic mean is {share_text(mean)}")
    if not parts:
        return "The evaluation has nothing to choose between, so no accuracy is measured."
    return f"Of the images that the unedited model draws right: {'; '.join(parts)}."


def _headline(results: Sequence[dict[str, Any]]) -> str:
    """Return the shares still recognized and kept in a few words; "" if neither was measured."""
    by_group = {row["group"]: row for row in results if row["of_right"] is not None}
    words: list[str] = []
    if erased := by_group.get("still_recognised"):
        concepts = f"{erased['names']} concept{'' if erased['names'] == 1 else 's'}"
        words.append(f"{erased['of_right']:.0%} of the images of {concepts} still show them")
    if kept := by_group.get("kept"):
        words.append(f"{kept['of_right']:.0%} of what is kept is still recognized")
    return ", ".join(words).replace("%", " %") + "." if words else ""


def share_text(row: dict[str, Any], name: str = "of_right") -> str:
    """Return a share with its interval; "" if the share is null."""
    if row[name] is None:
        return ""
    text = _percent(row[name])
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} ({_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def measure_rows(sections: Sequence[EditSection]) -> list[dict[str, Any]]:
    """Return the rows of the figure `edits`."""
    return [
        {
            "edit": section.name,
            "place": place,
            "group": row["group"],
            "value": row["of_right"],
            "low": row["of_right_low"],
            "high": row["of_right_high"],
            "names": row["names"],
            "images": row["images"],
        }
        for place, section in enumerate(sections)
        for row in section.results
        if row["group"] in GROUPS and row["of_right"] is not None
    ]


def _pictures(folder: Path, manifest: EditManifest) -> list[Picture]:
    concepts = ", ".join(concept.concept for concept in manifest.concepts[:12])
    paths = [(folder / BEFORE_AFTER, "before and after", f"Images of {concepts} and of kept names")]
    groups = sorted((folder / "evaluation" / PICTURES).glob("*.png"), key=_place)
    paths += [
        (path, path.stem, f"Images of the group {path.stem} of the evaluation") for path in groups
    ]
    pictures: list[Picture] = []
    for path, title, alt in paths:
        try:
            source = picture_uri(path)
        except CorruptImage:  # not drawn, or damaged: the numbers are shown without it
            continue
        alt = f"{alt}, each before and after the edit from the same latent"
        pictures.append(Picture(source=source, title=title, alt=alt))
    return pictures


def _place(path: Path) -> tuple[int, str]:
    return (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem)
