"""The report of a run: one HTML file that holds everything it shows and needs no network."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from markupsafe import Markup

from engine.files import write_whole
from jobs.query.noises import noise_text
from jobs.query.rank import Choice
from jobs.query.select import opened_views
from jobs.query.words import filtered, notes
from jobs.report.edits import CONCEPTS, EditSection, edit_sections, measure_rows, share_text
from jobs.report.figures.data import ALPHA, FigureData, read_figure_data
from jobs.report.figures.edits import edits, pareto
from jobs.report.figures.known import FIGURES, default_measure
from jobs.report.figures.parts import ROWS, UNDEFINED_SHARE, spec_of
from jobs.report.figures.style import DARK, EFFECT_SCALE, LIGHT, config
from jobs.report.images import strips
from jobs.report.tables import (
    COLUMNS,
    CURVE_FIELDS,
    OVERLAP_FIELDS,
    STATE_FIELDS,
    TOKEN_FIELDS,
    WORD_FIELDS,
    packed,
)
from jobs.report.template import rendered, text_of
from jobs.report.words import (
    INTERVENTIONS,
    PARTS,
    Answer,
    answers,
    findings,
    in_short,
)
from jobs.runs.progress import progress_of
from jobs.runs.trace_run import TraceRun
from schemas.caption_filter import EVERY_CAPTION, CaptionFilter
from schemas.intervention import CONTROLS

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FAILURES = 50
"""The number of failures that a page lists."""
FAILED = f"""
SELECT unit_id, error, message, (SELECT count(*) FROM failures) AS total
FROM failures ORDER BY chunk, unit_id LIMIT {FAILURES}
"""
COUNTS = "SELECT count(*) AS trials, count(DISTINCT unit_id) AS units FROM scores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report that was written."""

    path: Path
    bytes: int
    answers: tuple[Answer, ...]


def write_report(
    run: TraceRun, folders: Sequence[Path], path: Path, *, only: CaptionFilter = EVERY_CAPTION
) -> Report:
    """Write the report of a run and of the edits and sweeps in `folders` to `path`.

    Only the captions that pass `only` are read. ConceptError: a folder is neither an edit nor a
    sweep. StoreError, QueryRefused: the run cannot be read.
    """
    sections = edit_sections(folders)
    measure = default_measure(run.plan.measures)
    with opened_views(run, only=only) as views:
        data = read_figure_data(views)
        failures = views.query(FAILED).to_pylist()
        (counts,) = views.query(COUNTS).to_pylist()
        choice = Choice(measure=measure)
        read, said = filtered(views, choice), notes(views, choice)
    attributes = list(dict.fromkeys(caption.attribute for caption in run.plan.captions))
    answered = answers(data, measure, attributes)
    content = _rendered(
        run=run,
        answers=answered,
        short=in_short(answered),
        attributes=attributes,
        noises=[noise_text(run, noise) for noise in run.plan.numerics.sweep],
        measure=measure,
        strips=strips(run),
        edits=sections,
        failures=failures,
        counts=counts,
        read=read,
        notes=said,
        data=data,
        figures=_run_figures(data) + _edit_figures(sections),
    )
    write_whole(path, content)
    return Report(path=path, bytes=len(content), answers=tuple(answered))


def _run_figures(data: FigureData) -> list[dict[str, Any]]:
    """Return the data of each figure of the run that has rows, in the figures' order."""
    figures: list[dict[str, Any]] = []
    for name, figure in FIGURES.items():
        rows = figure.rows(data)
        for part in PARTS:
            of_part = [row for row in rows if row["part"] == part]
            if of_part:
                figures.append(
                    {
                        "id": f"{name}-{part}",
                        "name": name,
                        "title": figure.title,
                        "part": part,
                        "source": figure.source,
                        "where": figure.where,
                        "chosenBy": figure.chosen_by,
                        "columns": COLUMNS[name],
                        "spec": _without_rows(figure.spec(of_part)),
                    }
                )
    return figures


def _edit_figures(sections: Sequence[EditSection]) -> list[dict[str, Any]]:
    """Return the figures of edits, which contain their own rows."""
    figures: list[dict[str, Any]] = []
    if rows := measure_rows(sections):
        figures.append(_own_figure("edits", "edits", spec_of(edits, rows), _said(sections)))
    for number, section in enumerate(sections):
        if section.swept:
            spec = spec_of(pareto, [asdict(result) for result in section.swept])
            figures.append(_own_figure("pareto", f"pareto-{number}", spec, section.sentence))
    return figures


def _own_figure(name: str, place: str, spec: dict[str, Any], words: str) -> dict[str, Any]:
    no_choice = {"part": None, "source": None, "columns": None}
    return {"id": place, "name": name, **no_choice, "spec": {**spec, "description": words}}


def _said(sections: Sequence[EditSection]) -> str:
    return " ".join(f"{s.name}: {s.sentence}" for s in sections if s.results)


def _without_rows(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "datasets": {**spec["datasets"], ROWS: []}}


def _page_data(data: FigureData, figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the data that the page's script reads."""
    return {
        "tables": {
            "states": packed(data.states, STATE_FIELDS),
            "tokens": packed(data.tokens, TOKEN_FIELDS),
            "words": packed(data.words, WORD_FIELDS),
            "overlaps": packed(data.overlaps, OVERLAP_FIELDS),
            "curves": packed(data.curves, CURVE_FIELDS),
        },
        "findings": {name: findings(name, figure.rows(data)) for name, figure in FIGURES.items()},
        "figures": figures,
        "undefinedShare": UNDEFINED_SHARE,
        "themes": {
            "light": config(LIGHT, font=FONT),
            "dark": config(DARK, font=FONT),
        },
    }


def _rendered(
    *, run: TraceRun, data: FigureData, figures: list[dict[str, Any]], measure: str, **context: Any
) -> bytes:
    return rendered(
        "report.html",
        {"libraries": _libraries(), "script": text_of("report.js")},
        filters={"share": share_text},
        run=run,
        plan=run.plan,
        progress=progress_of(run),
        alpha=ALPHA,
        listed=CONCEPTS,
        scale=EFFECT_SCALE,
        parts=PARTS,
        interventions=INTERVENTIONS,
        measure=measure,
        controls=[control for control in CONTROLS if control in run.plan.interventions],
        figures=figures,
        data=data,
        page_data=_json(_page_data(data, figures)),
        **context,
    )


@cache
def _libraries() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, which the page contains once."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    assert "</script" not in bundle.lower()
    return bundle


def _json(value: Any) -> Markup:
    """Return JSON that is safe in a script element: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))
