"""Rules for the rows of a unit, which follow from the plan, for each kind of run.

The SELECTs are over a view `part` of the rows.
"""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from jobs.runs.attack_run import AttackRun
from jobs.runs.evaluation_run import EvaluationRun
from jobs.runs.run import Run
from jobs.runs.trace_run import TraceRun
from schemas.attack import Side, odd_attack
from schemas.component import Part
from schemas.evaluation import ODD_IMAGES
from schemas.exact_states import state_name
from schemas.intervention import Intervention, TokenRole, allows
from schemas.unit import Slab
from schemas.views import identifier, odd_words, unfit_numbers

CAPTIONS_OWN = {TokenRole.WORDS, TokenRole.EACH, TokenRole.PADS}
"""Roles that stand for several tokens, whose number depends on the caption."""


class ExpectedUnit(NamedTuple):
    """A unit as the plan determines it."""

    labels: tuple[object, ...]
    """Values that each of its rows repeats."""
    rows: int | None
    """Number of its rows; None where the plan does not tell."""
    slab: int = 0
    """Its slab, if it is a unit of a trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules for the rows of a plan's units."""

    labels: tuple[str, ...]
    """Columns that each row of a unit repeats."""
    keys: tuple[str, ...]
    """Columns that tell the rows of a unit apart."""
    expected: Callable[[int], ExpectedUnit]
    """Returns the expected fields of the unit at a place in the plan's order."""
    cells: frozenset[tuple[object, ...]] | None = None
    """Values of `keys` in the rows of any unit; None where the plan does not tell."""
    odd: str = "false"
    """SQL condition for a row that no worker writes."""


class Scored(NamedTuple):
    """A unit as its rows have it."""

    unit_id: str
    num_rows: int
    num_scores: int
    """Rows that differ in the columns that tell a unit's rows apart."""
    labels: tuple[object, ...]


def rules_of(run: Run[Any]) -> Rules:
    """Return the rules of a run of any kind."""
    if isinstance(run, EvaluationRun):
        return _of_evaluation(run)
    if isinstance(run, AttackRun):
        return _of_attack(run)
    assert isinstance(run, TraceRun)
    return _of_trace(run)


def _of_trace(run: TraceRun) -> Rules:
    units, ids, plan = run.units, run.unit_ids, run.plan
    # Captions of one attribute are traced with the same sets.
    attributes = dict.fromkeys(caption.attribute for caption in plan.captions)
    rows = [{of: rows_of_unit(run, slab, of) for of in attributes} for slab in units.slabs]

    def expected(ordinal: int) -> ExpectedUnit:
        caption, seed, draw, noise, slab = units.place(ordinal)
        labels = (
            *(ids.captions[caption], plan.seeds[seed], draw, plan.numerics.sweep[noise]),
            units.slabs[slab].part.value,
        )
        return ExpectedUnit(labels, rows[slab][plan.captions[caption].attribute], slab)

    return Rules(
        labels=("caption_id", "seed", "draw", "noise_sigmas", "part"),
        keys=(
            *("component", "intervention", "token", "position"),
            *("step_start", "step_stop", "patch_kind", "measure"),
        ),
        expected=expected,
        odd=" OR ".join(odd_words(run.schema).values()),
    )


def _of_evaluation(run: EvaluationRun) -> Rules:
    def expected(ordinal: int) -> ExpectedUnit:
        unit = run.units[ordinal]
        subject = unit.subject
        kind = subject.kind and subject.kind.value
        labels = (subject.name, kind, subject.replacement, unit.seed)
        prompts = {(prompt.group, prompt.text, prompt.kind) for prompt in subject.prompts}
        return ExpectedUnit(labels, len(run.plan.edits) * len(prompts))

    plan = run.plan
    prompts = [prompt for subject in plan.subjects for prompt in subject.prompts]
    return Rules(
        labels=("subject", "subject_kind", "replacement", "seed"),
        keys=("edit", "group", "prompt", "kind"),
        expected=expected,
        cells=frozenset((name, p.group, p.text, p.kind) for name in plan.edits for p in prompts),
        odd=ODD_IMAGES,
    )


def _of_attack(run: AttackRun) -> Rules:
    def expected(ordinal: int) -> ExpectedUnit:
        concept = run.units[ordinal]
        labels = (concept.concept, concept.kind.value)
        return ExpectedUnit(labels, len(Side) * len(run.plan.kinds))

    return Rules(
        labels=("concept", "kind"),
        keys=("side", "attack"),
        expected=expected,
        cells=frozenset(product(Side, run.plan.kinds)),
        odd=odd_attack(run.plan),
    )


def scored_units(connection: duckdb.DuckDBPyConnection, rules: Rules) -> list[Scored]:
    """Return the units that have rows, with their labels."""
    labels, keys = (", ".join(map(identifier, names)) for names in (rules.labels, rules.keys))
    rows = connection.execute(
        f"SELECT unit_id, count(*), count(DISTINCT ({keys})), {labels} FROM part GROUP BY ALL"
    ).fetchall()
    return [Scored(*row[:3], labels=row[3:]) for row in rows]


def not_finite(connection: duckdb.DuckDBPyConnection, schema: pa.Schema) -> int:
    """Return the number of rows with a number that is not finite."""
    unfit = " OR ".join(unfit_numbers(schema).values())
    return connection.execute(f"SELECT count(*) FROM part WHERE {unfit}").fetchall()[0][0]


def odd_rows(connection: duckdb.DuckDBPyConnection, rules: Rules) -> int:
    """Return the number of rows that no worker writes for the plan."""
    odd = connection.execute(f"SELECT count(*) FROM part WHERE {rules.odd}").fetchall()[0][0]
    if rules.cells is None:
        return odd
    keys = ", ".join(map(identifier, rules.keys))
    cells = connection.execute(f"SELECT {keys}, count(*) FROM part GROUP BY ALL").fetchall()
    return odd + sum(count for *cell, count in cells if tuple(cell) not in rules.cells)


def rows_of_unit(run: TraceRun, slab: Slab, attribute: str) -> int | None:
    """Return the number of rows of each unit of a slab and attribute; None if it depends on the
    caption."""
    plan = run.plan
    is_text = slab.part is Part.TEXT_ENCODER
    if is_text and CAPTIONS_OWN & set(plan.tokens):
        return None
    lacks_match = any(caption.counterfactual is None for caption in plan.captions)
    if Intervention.MATCHED in plan.interventions and lacks_match:
        return None
    patches = _patches(run, slab, attribute) + _set_patches(run, slab, attribute)
    return patches * len(plan.measures)


def _set_patches(run: TraceRun, slab: Slab, attribute: str) -> int:
    """Return how many patched runs of sets a unit of a slab and attribute has."""
    plan = run.plan
    caption = next(c for c in plan.captions if c.attribute == attribute)
    cases = product(slab.sets, plan.interventions, plan.patches)
    return sum(each.allows(what, kind, caption) for each, what, kind in cases)


def _patches(run: TraceRun, slab: Slab, attribute: str) -> int:
    """Return how many patched runs of components a unit of a slab and attribute has."""
    plan, names = run.plan, set(slab.components)
    components = [c for c in run.components if c.name in names]
    caption = plan.captions[0]  # all captions are alike here: the caller asks only then
    tokens = [role.value for role in plan.tokens] if slab.part is Part.TEXT_ENCODER else ["all"]
    states = plan.exact_states and plan.exact_states.of(attribute, slab.part)
    return sum(
        states is None or state_name(slab.part, each.name, window=window, token=token) in states
        for each in components
        for pair in product(plan.interventions, plan.patches)
        if allows(*pair, each, caption)
        for window, token in product(slab.windows, tokens)
    )
