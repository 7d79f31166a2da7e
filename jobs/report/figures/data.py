"""The data of a run's figures: rows of its views, with short names and places."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.query.opened import Views
from jobs.query.rank import Choice, concentrations, overlaps, ranked
from jobs.report.figures.labels import KIND_NAMES, Place, places
from schemas.component import Component, Kind
from schemas.intervention import CONTROLS, Intervention, TokenRole
from schemas.views import STATE

Row = dict[str, Any]

ALPHA = 0.05
"""The q-value under which a state is causal, as in the view `causal_states`."""
MAX_STATES = 20_000
"""About the most states that a page draws; a page with more is slow and large."""
CONTROLLED = 15
"""The number of a ranking's states that are drawn next to their controls."""
PADS = 9
"""All pads from this one on share one place."""

WHOLE = {KIND_NAMES[kind] for kind in (Kind.STREAM_TEXT, Kind.STREAM_IMAGE, Kind.LAYER, Kind.BLOCK)}
"""Kinds of which one component holds the whole state after a layer."""

GROUP = ("attribute", "part", "measure", "intervention")
"""The fields that a reader chooses by; ranks and q-values hold within one such group."""
RANKED = (
    *(*STATE, "intervention", "rank", "mean_ie AS mean", "ie_low AS low", "ie_high AS high"),
    *("q_causal AS q", "is_causal", "mean_te", "te_low", "te_high", "mean_recovery AS recovery"),
    "num_captions AS captions",
)

# A token's place in its caption is counted from the subject's last token, or from the end of the
# text on, so captions of different lengths are compared place by place, as in ROME's traces.
PLACED = rf"""
WITH seen AS (
  SELECT DISTINCT caption_id, position, token_text AS text,
    starts_with(token_text, '<|start') AS is_start,
    token_text IN ('<|endoftext|>', '</s>') AS is_end
  FROM scores WHERE part = 'text-encoder' AND regexp_full_match(token, '\d+')),
words AS (
  SELECT caption_id, position, string_agg(CASE WHEN is_start OR is_end THEN ''
    ELSE lower(replace(replace(text, '</w>', ' '), '▁', ' ')) END, '')
    OVER (PARTITION BY caption_id ORDER BY position) AS said
  FROM seen),
subjects AS (
  SELECT caption_id, coalesce(
    min(position) FILTER (ends_with(' ' || trim(said), ' ' || lower(subject))),
    min(position) FILTER (ends_with(replace(said, ' ', ''), replace(lower(subject), ' ', ''))))
    AS subject_at
  FROM words JOIN captions USING (caption_id) GROUP BY caption_id),
placed AS (
  SELECT caption_id, position, text, subject_at,
    CASE WHEN is_start THEN -1 WHEN position >= end_at THEN 1 ELSE 0 END AS zone,
    CASE WHEN is_start THEN 0 WHEN position >= end_at THEN least(position - end_at, {PADS})
      ELSE position - subject_at END AS place
  FROM seen JOIN subjects USING (caption_id) JOIN (
    SELECT caption_id, coalesce(min(position) FILTER (is_end), max(position) + 1) AS end_at
    FROM seen GROUP BY caption_id) USING (caption_id))
"""
"""Queries with the table `placed`: each token's zone (start, text or end) and place in it."""
TOKENS = rf"""
{PLACED},
of_captions AS (
  SELECT attribute, part, component, measure, intervention, zone, place, caption_id,
    avg(indirect_effect) AS ie, mode(text) AS text
  FROM effects JOIN placed USING (caption_id, position)
  WHERE part = 'text-encoder' AND regexp_full_match(token, '\d+') AND subject_at IS NOT NULL
  GROUP BY ALL)
SELECT attribute, part, component, measure, intervention, zone, place, avg(ie) AS mean,
  stddev_samp(ie) / sqrt(count(*)) AS se, count(*) AS captions, mode(text) AS text
FROM of_captions GROUP BY ALL ORDER BY zone, place
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureData:
    """The rows of the figures; all have the fields of GROUP."""

    states: list[Row]
    """All states, or the share of them that `cut` describes.

    `main`: the state represents its component. `depth`: the layer that a stream or a whole layer
    comes after. `window`: its index among a part's windows of steps,
    where there are several. `controlled`: its index among the leading states with traced controls,
    the same for restoring and for the controls. Otherwise these are None.
    """
    tokens: list[Row]
    """Effects by component and place in the caption."""
    overlaps: list[Row]
    concentration: list[Row]
    cut: str
    """A sentence that says what was left out for size; "" if nothing was."""


def read_figure_data(views: Views) -> FigureData:
    """Return the data of a run's figures."""
    run, everything = views.run, Choice(intervention=None)
    drawn = places(run.components)
    components = {component.name: component for component in run.components}
    rows = ranked(views, everything, columns=RANKED).to_pylist()
    states = [_state(row, components[row["component"]], drawn[row["component"]]) for row in rows]
    _name(states)
    _mark_main(states)
    _mark_depth(states)
    kept, cut = capped(states, MAX_STATES)
    _mark_windows(kept)
    _mark_controlled(kept)
    return FigureData(
        states=kept,
        tokens=_tokens(views, kept, components, drawn),
        overlaps=overlaps(views, everything).to_pylist(),
        concentration=concentrations(views, everything).to_pylist(),
        cut=cut,
    )


def _state(row: Row, component: Component, place: Place) -> Row:
    is_significant = row["q"] is not None and row["q"] < ALPHA and row["mean"] > 0
    survives = row["is_causal"] if row["intervention"] == Intervention.RESTORE else is_significant
    return {
        **row,
        "label": place.label,
        "kind": KIND_NAMES[component.kind],
        "layer": component.layer,
        "module": component.name.partition(".")[0],
        "letter": place.letter,
        "block": place.block,
        "order": component.order,
        "x": place.x,
        "y": place.y,
        "steps": f"{row['step_start']}:{row['step_stop']}",
        "survives": "yes" if survives else "no",
        "main": None,
        "window": None,
        "controlled": None,
        "depth": None,
    }


def _name(states: Sequence[Row]) -> None:
    """Add the token and the steps to the labels of a part that has several."""
    tokens, steps = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for row in states:
        tokens[row["part"]].add(row["token"])
        steps[row["part"]].add(row["steps"])
    for row in states:
        token = f" @{row['token']}" if len(tokens[row["part"]]) > 1 else ""
        window = f" [{row['steps']}]" if len(steps[row["part"]]) > 1 else ""
        row["state"] = f"{row['label']}{token}{window}"


def _mark_main(states: Sequence[Row]) -> None:
    """Mark one state of each component: over the most steps, then with the largest effect."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in states:
        key = (*(row[name] for name in GROUP), row["component"])
        if key not in best or _weight(row) > _weight(best[key]):
            best[key] = row
    for row in best.values():
        row["main"] = True


def _mark_depth(states: Sequence[Row]) -> None:
    """Number the layers of main states that hold all that passes there, where there are several."""
    whole = [row for row in states if row["main"] and row["kind"] in WHOLE]
    layers = defaultdict[str, set[int]](set)
    for row in whole:
        layers[row["part"]].add(row["layer"])
    for row in whole:
        if len(layers[row["part"]]) > 1:
            row["depth"] = row["layer"]


def _weight(row: Row) -> tuple[float, ...]:
    return row["step_stop"] - row["step_start"], row["token"] == "last_subject", abs(row["mean"])


def group_of(row: Row) -> tuple[Any, ...]:
    """Return the values of GROUP."""
    return tuple(row[name] for name in GROUP)


def capped(states: list[Row], limit: int) -> tuple[list[Row], str]:
    """Return about `limit` states at most, and a sentence that says what was left out.

    All main states are kept, and of each group's other states those of the components with the
    largest effects, each component whole.
    """
    if len(states) <= limit:
        return states, ""
    others = [row for row in states if not row["main"]]
    share = (limit - len(states) + len(others)) // max(1, len({group_of(row) for row in others}))
    peaks: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    sizes: Counter[tuple[Any, ...]] = Counter()
    for row in others:
        group, name = group_of(row), row["component"]
        peaks[group][name] = max(peaks[group].get(name, 0.0), abs(row["mean"]))
        sizes[(*group, name)] += 1
    kept: set[tuple[Any, ...]] = set()
    for group, of_component in peaks.items():
        left = share
        for name in sorted(of_component, key=lambda n: -of_component[n]):
            left -= sizes[(*group, name)]
            if left < 0:
                break
            kept.add((*group, name))
    drawn = [row for row in states if row["main"] or (*group_of(row), row["component"]) in kept]
    return drawn, (
        f"{len(drawn):,} of {len(states):,} states are in this page: every component at its widest "
        "window, and the windows and tokens of the components whose effects reach furthest; "
        "`dqf query RUN` has all."
    )


def _mark_windows(states: Sequence[Row]) -> None:
    """Number the windows that are narrower than a part's widest, where there are several."""
    by_part = defaultdict[str, set[tuple[int, int]]](set)
    for row in states:
        by_part[row["part"]].add((row["step_start"], row["step_stop"]))
    numbers: dict[tuple[str, int, int], int] = {}
    for part, windows in by_part.items():
        widest = max(stop - start for start, stop in windows)
        narrow = sorted(w for w in windows if w[1] - w[0] < widest) or sorted(windows)
        if len(narrow) > 1:
            numbers |= {(part, *window): n for n, window in enumerate(narrow)}
    for row in states:
        row["window"] = numbers.get((row["part"], row["step_start"], row["step_stop"]))


def _state_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in STATE)


def _mark_controlled(states: Sequence[Row]) -> None:
    """Number the leading restored states that have controls; the controls get the same numbers."""
    controls = defaultdict[tuple[Any, ...], list[Row]](list)
    for row in states:
        if row["intervention"] in CONTROLS:
            controls[_state_of(row)].append(row)
    restored = [r for r in states if r["intervention"] == "restore" and _state_of(r) in controls]
    seen: Counter[tuple[Any, ...]] = Counter()
    for row in sorted(restored, key=lambda r: -r["mean"]):
        seen[group_of(row)] += 1
        if seen[group_of(row)] <= CONTROLLED:
            for run in (row, *controls[_state_of(row)]):
                run["controlled"] = seen[group_of(row)]


def _tokens(
    views: Views, states: Iterable[Row], components: dict[str, Component], drawn: dict[str, Place]
) -> list[Row]:
    """Return effects by place: single positions if they were traced, otherwise token roles."""
    has_positions = {"each", "words"} & {*views.run.plan.tokens}
    rows = views.query(TOKENS).to_pylist() if has_positions else []
    if rows:
        return [
            token_row(row, components[row["component"]], drawn[row["component"]]) for row in rows
        ]
    roles = list(TokenRole)
    by_role = [row for row in states if row["part"] == "text-encoder" and row["token"] in roles]
    if len({row["token"] for row in by_role}) < 2:
        return []
    return [
        {**row, "place": row["token"], "place_order": roles.index(row["token"]), "text": ""}
        for row in by_role
    ]


def token_row(row: Row, component: Component, place: Place) -> Row:
    """Return the effect at a place with its interval and the names of component and place."""
    half = 1.96 * row["se"] if row["se"] is not None else None
    return {
        **row,
        "low": None if half is None else row["mean"] - half,
        "high": None if half is None else row["mean"] + half,
        "label": place.label,
        "order": component.order,
        "place": place_name(row["zone"], row["place"]),
        "place_order": row["zone"] * 1000 + row["place"],
        "text": re.sub("</w>|▁", "", row["text"] or ""),
    }


def place_name(zone: int, place: int) -> str:
    """Return the name of a place in a caption."""
    if zone == -1:
        return "start"
    if zone == 1:
        return "end" if place == 0 else f"pad {place}" + ("+" if place == PADS else "")
    return "subject" if place == 0 else f"{place:+d}".replace("-", "\N{MINUS SIGN}")
