"""The index of runs and edits: what each found, with links to their reports, in one page."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from engine.files import is_file, is_folder, write_whole
from jobs.editing.manifest import BEFORE_AFTER, MANIFEST, read_manifest
from jobs.query.select import opened_views
from jobs.report.edits import edit_headline
from jobs.report.figures.data import read_figure_data
from jobs.report.figures.known import default_measure
from jobs.report.template import rendered, text_of
from jobs.report.words import answers, in_short
from jobs.runs.kinds import open_any
from jobs.runs.progress import progress_of
from jobs.runs.run import PLAN
from jobs.runs.trace_run import TraceRun
from schemas.caption_filter import CaptionFilter
from schemas.errors import DqfError
from schemas.results import SWEEP

REPORT = "report.html"
"""The name of a run's report in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run or edit of the index."""

    name: str
    kind: str
    facts: tuple[str, ...] = ()
    found: str = ""
    problem: str = ""
    """Why it cannot be read; "" if it can."""
    link: str = ""
    """The relative URL of its report or picture; "" if there is none."""
    link_text: str = ""
    command: str = ""
    """The command that makes its report, where there is none."""


def write_index(runs: Path, edits: Path, path: Path) -> list[Entry]:
    """Write the index of the runs and edits in two folders to `path` and return its entries.

    A folder that cannot be read has an entry that says why. Folders of neither are left out.
    """
    entries = [
        *(_entry(folder, "run", path) for folder in _folders(runs, PLAN)),
        *(_entry(folder, "edit", path) for folder in _folders(edits, MANIFEST, SWEEP)),
    ]
    page = rendered("index.html", {"script": text_of("index.js")}, entries=entries)
    write_whole(path, page)
    return entries


def _folders(parent: Path, *markers: str) -> Iterator[Path]:
    """Yield the folders in `parent` that have one of the files, by name."""
    for folder in sorted(parent.iterdir() if is_folder(parent) else ()):
        if any(is_file(folder / marker) for marker in markers):
            yield folder


def _entry(folder: Path, kind: str, index: Path) -> Entry:
    try:
        return _run(folder, index) if kind == "run" else _edit(folder, index)
    except DqfError as problem:
        return Entry(name=folder.name, kind=kind, problem=str(problem))


def _run(folder: Path, index: Path) -> Entry:
    run = open_any(folder)
    progress = progress_of(run)
    facts = [run.plan.model, f"{progress.done:,} of {progress.total:,} units done"]
    if progress.failed:
        facts.append(f"{progress.failed:,} failed")
    if not isinstance(run, TraceRun):
        return Entry(name=folder.name, kind=run.noun, facts=tuple(facts))
    report = folder / REPORT
    has_report = is_file(report)
    return Entry(
        name=folder.name,
        kind="trace",
        facts=(*facts, f"{len(run.plan.captions):,} captions", run.manifest.created[:10]),
        found=_found(run),
        link=_link(report, index) if has_report else "",
        link_text="report",
        command="" if has_report else f"dqf report {shlex.quote(str(folder))}",
    )


def _found(run: TraceRun) -> str:
    """Return a run's findings, over the captions that its plan reads."""
    plan = run.plan
    only = CaptionFilter.parsed(plan.known, plan.min_te, measures=plan.measures)
    with opened_views(run, only=only) as views:
        data = read_figure_data(views)
    attributes = list(dict.fromkeys(caption.attribute for caption in plan.captions))
    answered = answers(data, default_measure(plan.measures), attributes)
    return in_short(answered) if answered else "No component has been restored yet."


def _edit(folder: Path, index: Path) -> Entry:
    is_sweep = is_file(folder / SWEEP)
    facts: tuple[str, ...] = ()
    if not is_sweep:
        manifest = read_manifest(folder)
        concepts = ", ".join(concept.concept for concept in manifest.concepts[:5])
        others = len(manifest.concepts) - 5
        more = f" and {others} more" if others > 0 else ""
        facts = (manifest.model, f"edits {concepts}{more}", manifest.created[:10])
    picture = folder / BEFORE_AFTER
    return Entry(
        name=folder.name,
        kind="sweep" if is_sweep else "edit",
        facts=tuple(fact for fact in facts if fact),
        found=edit_headline(folder),
        link=_link(picture, index) if is_file(picture) else "",
        link_text="images before and after",
    )


def _link(path: Path, index: Path) -> str:
    """Return the URL of a file from the index's folder on."""
    return quote(Path(os.path.relpath(path, index.parent)).as_posix())
