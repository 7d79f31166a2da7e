"""The data of a run's figures: rows of its views, with short names and places."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.query.noises import with_noise_texts
from jobs.query.opened import Views
from jobs.query.rank import Choice, concentrations, overlaps, ranked
from jobs.report.figures.labels import KIND_NAMES, Place, places
from jobs.report.figures.tokens import Row, caption_rows, first_captions, place_rows
from schemas.component import Component, Kind
from schemas.intervention import CONTROLS, Intervention, TokenRole
from schemas.views import STATE

ALPHA = 0.05
"""The q-value under which a state is causal, as in the view `causal_states`."""
MAX_STATES = 20_000
"""About the most states that a page draws; a page with more is slow and large."""
CONTROLLED = 15
"""The number of a ranking's states that are drawn next to their controls."""

WHOLE = {KIND_NAMES[kind] for kind in (Kind.STREAM_TEXT, Kind.STREAM_IMAGE, Kind.LAYER, Kind.BLOCK)}
"""Kinds of which one component holds the whole state after a layer."""

GROUP = ("attribute", "part", "measure", "intervention", "patch_kind", "noise_sigmas")
"""The fields that a reader chooses by; ranks and q-values hold within one such group."""
RANKED = (
    *(*STATE, "intervention", "rank", "mean_ie AS mean", "ie_low AS low", "ie_high AS high"),
    *("q_causal AS q", "is_causal", "mean_te", "te_low", "te_high", "mean_recovery AS recovery"),
    "num_captions AS captions",
)

CURVES = """
SELECT attribute, part, measure, intervention, patch_kind, noise_sigmas, curve, size,
  mean_recovery AS mean, recovery_low AS low, recovery_high AS high, mean_ie AS effect,
  num_sets AS sets, num_captions AS captions
FROM set_curves ORDER BY ALL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureData:
    """The rows of the figures; all have the fields of GROUP, `noise_sigmas` as a text, "" for one
    noise."""

    states: list[Row]
    """All states, or the share of them that `cut` describes.

    `main`: the state represents its component. `depth`: the layer that a stream or a whole layer
    comes after. `window`: its index among a part's windows of steps,
    where there are several. `controlled`: its index among the leading states with traced controls,
    the same for restoring and for the controls. Otherwise these are None.
    """
    tokens: list[Row]
    """Effects by component and place in the caption."""
    words: list[Row]
    """Effects by component and word of each attribute's first caption."""
    overlaps: list[Row]
    concentration: list[Row]
    curves: list[Row]
    """Shares of the total effect by the curve, size and intervention of sets; `mean` is None where
    the total effect may be zero."""
    cut: str
    """A sentence that says what was left out for size; "" if nothing was."""


def read_figure_data(views: Views) -> FigureData:
    """Return the data of a run's figures."""
    run, everything = views.run, Choice(intervention=None)
    drawn = places(run.components)
    components = {component.name: component for component in run.components}
    rows = with_noise_texts(run, ranked(views, everything, columns=RANKED).to_pylist())
    states = [_state(row, components[row["component"]], drawn[row["component"]]) for row in rows]
    _name(states)
    _mark_main(states)
    _mark_depth(states)
    kept, cut = capped(states, MAX_STATES)
    _mark_windows(kept)
    _mark_controlled(kept)
    return FigureData(
        states=kept,
        tokens=_tokens(views, kept),
        words=caption_rows(views, first_captions(run.plan.captions)),
        overlaps=with_noise_texts(run, overlaps(views, everything).to_pylist()),
        concentration=with_noise_texts(run, concentrations(views, everything).to_pylist()),
        curves=with_noise_texts(run, views.query(CURVES).to_pylist()),
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


def _tokens(views: Views, states: Iterable[Row]) -> list[Row]:
    """Return effects by place: single positions if they were traced, otherwise token roles."""
    if rows := place_rows(views):
        return rows
    roles = list(TokenRole)
    by_role = [row for row in states if row["part"] == "text-encoder" and row["token"] in roles]
    if len({row["token"] for row in by_role}) < 2:
        return []
    return [
        {**row, "place": row["token"], "place_order": roles.index(row["token"]), "text": ""}
        for row in by_role
    ]
