"""The exact effects of a run joined with those of the screened run that chose its states.

Captions that the states were chosen by are left out, so that the choice biases no mean and no
interval. Of the others some were traced exactly, and all were screened.
"""

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine.statistics.inference import Means, draws_of, mean_estimates, tied_ranks
from engine.statistics.prediction_powered import (
    MissRate,
    PredictionPowered,
    miss_rate,
    prediction_powered,
)
from jobs.query.opened import Views
from jobs.query.rank import CHOSEN, GROUP, PLACE, STEPS, Choice
from jobs.query.select import opened_together
from jobs.runs.trace_run import TraceRun
from schemas.caption_filter import CaptionFilter
from schemas.component import Part
from schemas.errors import PlanError
from schemas.exact_states import ChosenStates, ExactStates, state_name
from schemas.views import STATE

Row = dict[str, Any]

EXACT, SCREENED = "exact", "screened"
PAIRS = f"""
SELECT {", ".join(STATE)}, {STEPS}, intervention,
  list(caption_id ORDER BY caption_id) AS captions, list(e.ie ORDER BY caption_id) AS exact,
  list(s.ie ORDER BY caption_id) AS screened
FROM {SCREENED}.caption_effects AS s
LEFT JOIN {EXACT}.caption_effects AS e USING ({", ".join(STATE)}, intervention, caption_id)
WHERE NOT list_contains($ranked, caption_id)
  AND ($kind IS NULL OR intervention = $kind) AND {CHOSEN}
GROUP BY ALL HAVING count(e.ie) > 1
"""
COLUMNS = (
    *("attribute", "part", "measure", "rank", *PLACE[:2], "steps", *PLACE[3:], "mean_ie"),
    *("ie_low", "ie_high", "exact_ie", "exact_low", "exact_high", "screened_ie", "weight", "gain"),
    *("chosen", "num_captions", "num_screened"),
)
"""Columns of the table of joined states."""


def exact_states(run: TraceRun, screened: TraceRun) -> ExactStates:
    """Return how a run's states were chosen; PlanError: not from this screened run."""
    chosen = run.plan.exact_states
    if chosen is None:
        raise PlanError(
            f"run {run.name} was not chosen from a screened run: --with takes a run that "
            "`dqf trace submit --from-run RUN --exact 20` made, and its RUN"
        )
    if chosen.chosen_from != screened.id:
        raise PlanError(f"the states of run {run.name} were chosen from another run")
    return chosen


@contextmanager
def opened_with(run: TraceRun, screened: TraceRun, only: CaptionFilter) -> Generator[Views]:
    """Yield the views of a run and of the screened run that chose its states; PlanError: it did
    not."""
    exact_states(run, screened)
    with opened_together({EXACT: run, SCREENED: screened}, only=only) as views:
        yield views


def joined(views: Views, choice: Choice) -> list[Row]:
    """Return the chosen states with joined means, the largest first in each ranking.

    `mean_ie` is the joined mean with its interval, `exact_ie` that of the `num_captions` exact
    captions alone, `screened_ie` that of the screen over all `num_screened` captions; `weight` and
    `gain` are those of `PredictionPowered`, and `chosen` is `top` or `random`.
    """
    chosen = views.run.plan.exact_states
    assert chosen is not None
    parameters = {**choice.parameters, "ranked": list(chosen.ranked_captions)}
    kind = choice.intervention and str(choice.intervention)
    rows = views.query(PAIRS, {**parameters, "kind": kind}).to_pylist()
    groups = defaultdict[tuple[Any, ...], list[Row]](list)
    for row in rows:
        groups[tuple(row[name] for name in GROUP)].append(row)
    return [row for key in sorted(groups) for row in _ranked(_joined(groups[key], chosen))]


def leading(rows: Sequence[Row], *, top: int) -> list[Row]:
    """Return the first joined states of each ranking."""
    counts, leaders = defaultdict[tuple[Any, ...], int](int), list[Row]()
    for row in rows:
        key = tuple(row[name] for name in GROUP)
        counts[key] += 1
        leaders += [row] * (counts[key] <= top)
    return leaders


def _joined(rows: Sequence[Row], chosen: ExactStates) -> list[Row]:
    """Return the rows of a ranking with their means; states of the same captions are weighed
    together. `exact` is null for captions that were screened alone."""
    alike = defaultdict[tuple[Any, ...], list[Row]](list)
    for row in rows:
        alike[*row["captions"], *(value is None for value in row[EXACT])].append(row)
    return [row for of in alike.values() for row in _of_same_captions(of, chosen)]


def _of_same_captions(rows: Sequence[Row], chosen: ExactStates) -> list[Row]:
    exact_SC, f_SC = (np.array([row[n] for row in rows], np.float64) for n in (EXACT, SCREENED))
    is_exact_C = ~np.isnan(exact_SC[0])
    ids = tuple(np.array(rows[0]["captions"])[is_exact_C].tolist())
    x_SC, others_SO = exact_SC[:, is_exact_C], f_SC[:, ~is_exact_C]
    found = prediction_powered(x_SC, f_SC[:, is_exact_C], others_SO, draws_of(ids))
    alone = mean_estimates(x_SC, draws_of(ids))
    return [
        {
            **row,
            **_effect(found, state, "mean_ie", "ie"),
            **_effect(alone, state, "exact_ie", "exact"),
            "screened_ie": float(f_SC[state].mean()),
            "weight": float(found.lambda_S[state]),
            "gain": _known(found.gain_S[state]),
            "chosen": "top" if _name(row) in _of(chosen, row).top else "random",
            "num_captions": len(ids),
            "num_screened": f_SC.shape[1],
        }
        for state, row in enumerate(rows)
    ]


def _effect(found: PredictionPowered | Means, state: int, mean: str, ends: str) -> Row:
    return {
        mean: float(found.mean_S[state]),
        f"{ends}_low": _known(found.low_S[state]),
        f"{ends}_high": _known(found.high_S[state]),
    }


def _known(value: float) -> float | None:
    """Return a number; None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def _name(row: Mapping[str, Any]) -> str:
    window = row["step_start"], row["step_stop"]
    return state_name(Part(row["part"]), row["component"], window=window, token=row["token"])


def _of(chosen: ExactStates, row: Mapping[str, Any]) -> ChosenStates:
    of = row["attribute"], row["part"]
    return next(each for each in chosen.chosen if (each.attribute, each.part) == of)


def _ranked(rows: list[Row]) -> list[Row]:
    ends = [[row[f"ie_{end}"] for row in rows] for end in ("low", "high")]
    ranks = tied_ranks(*(np.array(values, np.float64) for values in ends)).tolist()
    ranked = [row | {"rank": rank} for row, rank in zip(rows, ranks, strict=True)]
    return sorted(ranked, key=lambda row: (-row["mean_ie"], _name(row)))


def sentences(run: TraceRun, screened: TraceRun, rows: list[Row]) -> list[str]:
    """Return for each attribute and part of joined rows what was screened, what exact, and what the
    screen missed."""
    chosen = run.plan.exact_states
    assert chosen is not None
    said: list[str] = []
    for each in chosen.chosen:
        of = [r for r in rows if (r["attribute"], r["part"]) == (each.attribute, each.part)]
        if of:
            said += [_counted(screened, chosen, each, of), *_missed(run, chosen, each, of)]
    return [*said, UNBIASED] if said else []


UNBIASED = (
    "Captions that states were ranked on are in no estimate, so that the choice of states biases "
    "none; an interval is of its state alone."
)


def _counted(screened: TraceRun, chosen: ExactStates, each: ChosenStates, rows: list[Row]) -> str:
    captions = [c for c in screened.plan.captions if c.attribute == each.attribute]
    ranked = sum(caption.id in chosen.ranked_captions for caption in captions)
    first, drawn = len(each.top), len(each.random)
    exact, every = (_range([row[n] for row in rows]) for n in ("num_captions", "num_screened"))
    random = f" and {drawn} drawn from the others" if drawn else ""
    return (
        f"{each.attribute}, {each.part}: {each.screened} states were screened by "
        f"{screened.plan.screen} on {len(captions)} captions; the first {first} by their ranking "
        f"on {ranked} of these{random} are estimated on {every} other ones, of which {exact} were "
        "traced exactly."
    )


def _range(counts: list[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{most}" if least == most else f"{least} to {most}"


def _missed(run: TraceRun, chosen: ExactStates, each: ChosenStates, rows: list[Row]) -> list[str]:
    """Return the miss rate of the ranking that states were chosen by, if it is among the rows."""
    plan = run.plan
    first = {
        "measure": chosen.measure,
        "intervention": plan.interventions[0],
        "patch_kind": plan.patches[0],
        "noise_sigmas": plan.numerics.sweep[0],
    }
    of = [row for row in rows if all(row[name] == value for name, value in first.items())]
    top, random = (
        np.array([row["mean_ie"] for row in of if row["chosen"] == how])
        for how in ("top", "random")
    )
    if not top.size or not random.size:
        return []
    found = miss_rate(top, random, unchosen=each.screened - len(each.top))
    return [_miss_sentence(each, found)]


def _miss_sentence(each: ChosenStates, found: MissRate) -> str:
    return (
        f"{each.attribute}, {each.part}: the screen missed {found.share:.0%} "
        f"[{found.low:.0%}, {found.high:.0%}] of the first {len(each.top)}, as {found.found} of "
        f"the {found.sampled} drawn states belong{'s' * (found.found == 1)} to these."
    )
