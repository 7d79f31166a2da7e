"""The edits of a report: what each erases and keeps, its images, and the edits of a sweep."""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.editing.delta_file import check_evaluates
from engine.files import is_file, read_json_file
from jobs.editing.manifest import BEFORE_AFTER, MANIFEST, read_manifest
from jobs.report.figures.edits import GROUPS
from jobs.report.images import picture_uri
from jobs.runs.png import CorruptImage
from jobs.runs.progress import Progress
from schemas.documents import is_mapping, parsed, parsed_rows
from schemas.errors import ConceptError
from schemas.evaluation import Group
from schemas.manifest import EditManifest
from schemas.results import (
    EVALUATION,
    HARMONIC,
    PICTURES,
    STILL_RECOGNISED,
    SUMMARY,
    SWEEP,
    GroupResult,
    SweepResult,
)

Row = TypeVar("Row", GroupResult, SweepResult)

CONCEPTS = 30
"""The number of an edit's concepts that a page lists."""
ORDER = (STILL_RECOGNISED, Group.KEPT, Group.CONCEPT, Group.PARAPHRASE, Group.POSITION)
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
    results: tuple[GroupResult, ...]
    """The rows of its evaluation that have images; empty if it has no evaluation."""
    swept: tuple[SweepResult, ...]
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
    results, lacking = _results(folder)
    sentence = _edit_sentence(results, folder)
    return EditSection(
        name=name,
        manifest=manifest,
        results=tuple(r for r in results if r.images or r.group in GROUPS),
        swept=(),
        pictures=tuple(_pictures(folder, manifest)),
        sentence=lacking + sentence,
        headline=lacking + (_headline(results) or sentence),
    )


def edit_headline(folder: Path) -> str:
    """Return the result of an edit or a sweep in a few words; ConceptError as `edit_sections`."""
    if is_file(folder / SWEEP):
        return _sweep(folder, folder.name).headline
    read_manifest(folder)
    results, lacking = _results(folder)
    return lacking + (_headline(results) or _edit_sentence(results, folder))


def _results(folder: Path) -> tuple[tuple[GroupResult, ...], str]:
    """Return the rows of an edit's evaluation, and a sentence on its units that have no scores.

    Both are empty if it has none.
    """
    path = folder / EVALUATION / SUMMARY
    if not os.path.lexists(path):
        return (), ""
    summary = read_json_file(path, error=ConceptError)
    rows = summary.get("results") if is_mapping(summary) else None
    if is_mapping(summary) and "edit" in summary:
        check_evaluates(folder, summary["edit"], path)
    lacking = _lacking(summary["units"], path) if is_mapping(summary) and "units" in summary else ""
    return _rows(GroupResult, rows, path, again="evaluate the edit again"), lacking


def _lacking(units: object, path: Path) -> str:
    progress = parsed(Progress, units, f"{path}, field 'units'", error=ConceptError)
    if not progress.unscored:
        return ""
    return f"{progress.unscored:,} of {progress.total:,} units of the evaluation have no scores. "


def _sweep(folder: Path, name: str) -> EditSection:
    path = folder / SWEEP
    rows = read_json_file(path, error=ConceptError)
    swept = _rows(SweepResult, rows, path, again="make the sweep again")
    best = [result.edit for result in swept if result.is_best]
    sentence = (
        f"Of {len(swept)} edits {len(best)} are beaten by no other: "
        f"{', '.join(best[:8])}{' and more' if len(best) > 8 else ''}."
    )
    return EditSection(
        name=name,
        manifest=None,
        results=(),
        swept=swept,
        pictures=(),
        sentence=sentence,
        headline=sentence,
    )


def _rows(kind: type[Row], rows: object, path: Path, *, again: str) -> tuple[Row, ...]:
    """Return the rows of a file; ConceptError if it is damaged, or another version's."""
    try:
        return parsed_rows(kind, rows, str(path), error=ConceptError)
    except ConceptError as problem:
        raise ConceptError(f"{problem}: {again}") from problem


def _edit_sentence(results: Sequence[GroupResult], folder: Path) -> str:
    shares = {row.group: share_text(row) for row in results}
    if not results:
        return (
            f"Not evaluated yet: `dqf edit evaluate {shlex.quote(str(folder))}` measures what it "
            "erases and keeps."
        )
    parts: list[str] = []
    if share := shares.get(STILL_RECOGNISED):
        parts.append(f"{share} of the concepts' images still show them")
    if share := shares.get(Group.KEPT):
        parts.append(f"{share} of what is kept is still recognized")
    if share := shares.get(HARMONIC):
        parts.append(f"the harmonic mean is {share}")
    if not parts:
        return "The evaluation has nothing to choose between, so no accuracy is measured."
    return f"Of the images that the unedited model draws right: {'; '.join(parts)}."


def _headline(results: Sequence[GroupResult]) -> str:
    """Return the shares still recognized and kept in a few words; "" if neither was measured."""
    by_group = {row.group: row for row in results}
    words: list[str] = []
    erased, kept = by_group.get(STILL_RECOGNISED), by_group.get(Group.KEPT)
    if erased and erased.of_right is not None:
        concepts = f"{erased.names} concept{'' if erased.names == 1 else 's'}"
        words.append(f"{erased.of_right:.0%} of the images of {concepts} still show them")
    if kept and kept.of_right is not None:
        words.append(f"{kept.of_right:.0%} of what is kept is still recognized")
    return ", ".join(words).replace("%", " %") + "." if words else ""


def share_text(row: GroupResult | SweepResult, name: str = "of_right") -> str:
    """Return a share with its interval; "" if the share is null."""
    share, low, high = (getattr(row, f"{name}{end}", None) for end in ("", "_low", "_high"))
    if share is None:
        return ""
    text = _percent(share)
    return text if low is None or high is None else f"{text} ({_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def measure_rows(sections: Sequence[EditSection]) -> list[dict[str, Any]]:
    """Return the rows of the figure `edits`."""
    return [
        {
            "edit": section.name,
            "place": place,
            "group": row.group,
            "value": row.of_right,
            "low": row.of_right_low,
            "high": row.of_right_high,
            "names": row.names,
            "images": row.images,
        }
        for place, section in enumerate(sections)
        for row in section.results
        if row.group in GROUPS and row.of_right is not None
    ]


def _pictures(folder: Path, manifest: EditManifest) -> list[Picture]:
    concepts = ", ".join(concept.concept for concept in manifest.concepts[:12])
    paths = [(folder / BEFORE_AFTER, "before and after", f"Images of {concepts} and of kept names")]
    groups = sorted((folder / EVALUATION / PICTURES).glob("*.png"), key=_place)
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
