"""The statistics of a run as Arrow tables: estimates, controls, overlaps, concentration.

Shapes: S states of a family, C its captions (suffixes `_SC`, `_S`).
"""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.statistics.causal_sets import resampled_set
from engine.statistics.composite import AboveZero, above_zero_p, claim_p, q_values
from engine.statistics.inference import (
    Array,
    by_captions,
    draws_of,
    mean_estimates,
    ratio_interval,
    sign_flip_p,
    tied_ranks,
)
from jobs.query.attributes import (
    BoolArray,
    CausalSet,
    concentration_row,
    overlap_row,
    profile,
)
from jobs.query.caption_means import Effects, Family, reduced
from jobs.query.set_effects import set_tables
from schemas.intervention import CONTROLS, Intervention
from schemas.statistics import DISCOVERY_RATE, STATISTICS
from schemas.views import MIN_TOTAL_EFFECT

RESTORE = Intervention.RESTORE.value

Columns = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Means over captions and their tests, one per state; NaN where it has none."""

    x_SC: Array
    mean_S: Array
    se_S: Array
    low_S: Array
    high_S: Array
    p_S: Array
    q_S: Array
    """q-values over the states that have a mean."""
    test: AboveZero
    """Test of "the mean is above zero"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """A control over the captions that it shares with the restored state."""

    restored_S: Array
    own: Estimates
    difference: Estimates
    """Restored minus control, caption by caption."""

    def decisive(self, control: Intervention) -> Estimates:
        """Return the estimates that must be above zero for a state to be causal."""
        return self.own if control is Intervention.OTHER_SEED else self.difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims that states pass all of their tests, one per state."""

    tests: tuple[Estimates, ...]
    p_S: Array
    q_S: Array

    @property
    def is_found(self) -> BoolArray:
        """The claims that hold."""
        return self.q_S < DISCOVERY_RATE


def make_statistics(connection: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
    """Return the tables of `schemas.statistics` of the run whose views a connection has."""
    tables = {name: [schema.empty_table()] for name, schema in STATISTICS.items()}
    sets: dict[tuple[str, str, float, str], list[CausalSet]] = {}
    is_screened = _is_screened(connection)
    with reduced(connection) as (places, families):
        for family in families:
            estimates = {name: _estimates(e.ie_SC, family) for name, e in family.effects.items()}
            controls = _controls(family)
            claims = {
                name: _no_claims(e) if is_screened else _claims(name, e, controls, family.captions)
                for name, e in estimates.items()
            }
            names = _components(family, places)
            causal = _causal_set(family, claims.get(RESTORE), names)
            of = (family.part, family.patch_kind, family.noise_sigmas, family.measure)
            sets.setdefault(of, []).append(causal)
            for name, found in estimates.items():
                columns = _ranking(family, name, found, controls, claims[name])
                tables["ranking"].append(_table("ranking", family, places, columns))
            for control, found in controls.items():
                columns = _controlled(control, found)
                tables["controlled_effects"].append(
                    _table("controlled_effects", family, places, columns)
                )
            if RESTORE in family.effects:
                tables["concentration"].append(_row("concentration", _concentration(family, names)))
    tables["overlap"] += [
        _row("overlap", overlap_row(*of, one, other))
        for of, found in sets.items()
        for one, other in combinations(found, 2)
    ]
    made = {name: pa.concat_tables(found) for name, found in tables.items()}
    made["overlap"] = _with_q(made["overlap"], "q_differs", of="p_differs")
    return made | {"ranking": _over_the_run(made["ranking"])} | set_tables(connection)


def _is_screened(connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether scores are estimates of a screen, which cannot support a claim."""
    found = connection.execute("SELECT 1 FROM scores WHERE estimate <> 'exact' LIMIT 1")
    return found.fetchone() is not None


def _no_claims(own: Estimates) -> Claims:
    """Return claims of which none holds and none was tested."""
    untested_S = np.full(len(own.mean_S), np.nan)
    return Claims(tests=(own,), p_S=untested_S, q_S=untested_S)


def _components(family: Family, places: pa.Table) -> list[str]:
    """Return the component of each of a family's states."""
    taken = places["component"].take(pa.array(family.places_S, pa.int64()))
    return cast("list[str]", taken.to_pylist())


def _concentration(family: Family, components: Sequence[str]) -> Columns:
    restored_SC = family.effects[RESTORE].ie_SC
    (rows,) = np.nonzero(~np.isnan(restored_SC).all(axis=1))
    names = [components[row] for row in rows.tolist()]
    return concentration_row(family, restored_SC[rows], names)


def _estimates(x_SC: Array, family: Family) -> Estimates:
    names = ("mean", "se", "low", "high", "above_p", "hall_p")
    found = {name: np.full(len(x_SC), np.nan) for name in (*names, "p")}
    for states, captions in by_captions(x_SC):
        draws = draws_of(tuple(family.captions[int(caption)] for caption in captions))
        own_SC = x_SC[np.ix_(states, captions)]
        means = mean_estimates(own_SC, draws)
        for name in names:
            found[name][states] = getattr(means, f"{name}_S")
        found["p"][states] = sign_flip_p(own_SC, draws)
    above_p_S, hall_p_S = found.pop("above_p"), found.pop("hall_p")
    drawn_p_S = above_zero_p(found["p"], found["mean"], above_p_S)
    return Estimates(
        x_SC=x_SC,
        q_S=q_values(found["p"]),
        test=AboveZero(x_SC=x_SC, drawn_p_S=drawn_p_S, hall_p_S=hall_p_S),
        **{f"{name}_S": values for name, values in found.items()},
    )


def _controls(family: Family) -> dict[Intervention, Controlled]:
    found: dict[Intervention, Controlled] = {}
    for control in CONTROLS:
        if {RESTORE, control.value} <= family.effects.keys():
            restored_SC = family.effects[RESTORE].ie_SC
            control_SC = family.effects[control.value].ie_SC
            has_both_SC = ~np.isnan(restored_SC + control_SC)
            found[control] = Controlled(
                restored_S=_mean(np.where(has_both_SC, restored_SC, np.nan)),
                own=_estimates(np.where(has_both_SC, control_SC, np.nan), family),
                difference=_estimates(restored_SC - control_SC, family),
            )
    return found


def _mean(x_SC: Array) -> Array:
    sizes_S = (~np.isnan(x_SC)).sum(1)
    return np.where(sizes_S > 0, np.nansum(x_SC, axis=1) / np.maximum(sizes_S, 1), np.nan)


def _claims(
    intervention: str,
    own: Estimates,
    controls: Mapping[Intervention, Controlled],
    captions: Sequence[str],
) -> Claims:
    """Return the claims of an intervention's states: restored ones have to pass the controls."""
    tests = [own]
    if intervention == RESTORE:
        tests += [found.decisive(control) for control, found in controls.items()]
    p_S = claim_p([test.test for test in tests], captions)
    return Claims(tests=tuple(tests), p_S=p_S, q_S=q_values(p_S))


def _causal_set(family: Family, claims: Claims | None, components: Sequence[str]) -> CausalSet:
    """Return the restored states whose claim holds; empty where none were restored."""
    states = len(family.places_S)
    is_causal_S = claims.is_found if claims else np.zeros(states, np.bool_)
    bits_SB = np.full((states, 1), 0xFF if claims else 0, np.uint8)
    for test in claims.tests if claims else ():
        # A control that was not traced for a state does not affect its claim.
        applies_S1 = ~np.isnan(test.mean_S)[:, None]
        own_SB = resampled_set(test.x_SC, is_causal_S, test.se_S, draws_of(family.captions))
        bits_SB = bits_SB & np.where(applies_S1, own_SB, np.uint8(0xFF))
    restored_SC = (
        claims.tests[0].x_SC if claims else np.full((states, len(family.captions)), np.nan)
    )
    names, profile_KC = profile(restored_SC, components)
    return CausalSet(
        attribute=family.attribute,
        captions=family.captions,
        places_S=family.places_S,
        is_causal_S=is_causal_S,
        bits_SB=bits_SB,
        components=names,
        profile_KC=profile_KC,
    )


def _ranking(
    family: Family,
    intervention: str,
    found: Estimates,
    controls: Mapping[Intervention, Controlled],
    claims: Claims,
) -> Columns:
    """Return the columns of an intervention's states; those of others are NaN in `mean_ie`."""
    effects, is_restored = family.effects[intervention], intervention == RESTORE
    ranks_S = np.zeros(len(found.mean_S), np.int64)
    is_known_S = ~np.isnan(found.mean_S)
    ranks_S[is_known_S] = tied_ranks(found.low_S[is_known_S], found.high_S[is_known_S])
    traced = {control.value: ~np.isnan(c.own.mean_S) for control, c in controls.items()}
    return {
        "rank": ranks_S,
        "intervention": [intervention] * len(ranks_S),
        "mean_ie": found.mean_S,
        "ie_low": found.low_S,
        "ie_high": found.high_S,
        "se_ie": found.se_S,
        **_total_effects(effects, family),
        "num_captions": (~np.isnan(effects.ie_SC)).sum(1),
        "num_seeds": effects.num_seeds_S,
        "num_draws": effects.num_draws_S,
        "num_trials": effects.num_trials_S,
        "p_value": found.p_S,
        "q_value": found.q_S,
        "p_causal": claims.p_S,
        "q_causal": claims.q_S,
        "q_run": np.full(len(ranks_S), np.nan),
        "controls": [
            [name for name, has_S in traced.items() if is_restored and has_S[state]]
            for state in range(len(ranks_S))
        ],
        "is_causal": claims.is_found & is_restored,
    }


def _over_the_run(ranking: pa.Table) -> pa.Table:
    """Return a ranking with `q_run`: q-values over all families of the run together."""
    interventions = np.array(ranking["intervention"].to_pylist(), dtype=np.str_)
    p_S, q_S = ranking["p_causal"].to_numpy(), np.full(len(ranking), np.nan)
    for intervention in np.unique(interventions):
        states = interventions == intervention
        q_S[states] = q_values(p_S[states])
    return _with(ranking, "q_run", q_S)


def _with_q(table: pa.Table, name: str, *, of: str) -> pa.Table:
    """Return a table whose column `name` has the q-values of the p-values `of` all rows."""
    return _with(table, name, q_values(table[of].to_numpy()))


def _with(table: pa.Table, name: str, values: Array) -> pa.Table:
    """Return a table with other values in one column; NaN becomes null."""
    place = table.schema.get_field_index(name)
    field = cast("pa.Field[Any]", table.schema.field(place))
    column = pa.array(values, pa.float64(), from_pandas=True)
    return table.set_column(place, field, column)


def _total_effects(effects: Effects, family: Family) -> Columns:
    """Return total effects, which are the same for many states, and recoveries."""
    names = ("mean_te", "te_low", "te_high", "mean_recovery", "recovery_low", "recovery_high")
    columns = {name: np.full(len(effects.te_SC), np.nan) for name in names}
    for states, captions in by_captions(effects.ie_SC):
        draws = draws_of(tuple(family.captions[int(caption)] for caption in captions))
        ie_SC = effects.ie_SC[np.ix_(states, captions)]
        te_SC = effects.te_SC[np.ix_(states, captions)]
        distinct, which_S = _distinct(te_SC)
        te = mean_estimates(te_SC[distinct], draws)
        columns["mean_te"][states] = te.mean_S[which_S]
        columns["te_low"][states] = te.low_S[which_S]
        columns["te_high"][states] = te.high_S[which_S]
        low_S, high_S = ratio_interval(ie_SC, te_SC, draws)
        columns["recovery_low"][states], columns["recovery_high"][states] = low_S, high_S
        is_noise_S = (np.abs(te.mean_S) < MIN_TOTAL_EFFECT) | te.reaches_zero
        te_S = np.where(is_noise_S, np.nan, te.mean_S)[which_S]
        columns["mean_recovery"][states] = ie_SC.mean(1) / te_S
    is_noise_S = np.isnan(columns["mean_recovery"])
    columns["recovery_low"][is_noise_S] = columns["recovery_high"][is_noise_S] = np.nan
    return columns


def _distinct(te_SC: Array) -> tuple[list[int], NDArray[np.int64]]:
    """Return states with distinct rows, and for each state the one that equals it."""
    rows = [row.tobytes() for row in te_SC.round(12)]
    first = {row: state for state, row in reversed(list(enumerate(rows)))}
    number = {row: n for n, row in enumerate(first)}
    return list(first.values()), np.array([number[row] for row in rows], np.int64)


def _controlled(control: Intervention, found: Controlled) -> Columns:
    own, difference = found.own, found.difference
    return {
        "control": [control.value] * len(own.mean_S),
        "mean_ie": found.restored_S,
        "control_ie": own.mean_S,
        "control_low": own.low_S,
        "control_high": own.high_S,
        "se_control": own.se_S,
        "p_control": own.p_S,
        "q_control": own.q_S,
        "mean_difference": difference.mean_S,
        "difference_low": difference.low_S,
        "difference_high": difference.high_S,
        "se_difference": difference.se_S,
        "p_difference": difference.p_S,
        "q_difference": difference.q_S,
        "num_captions": (~np.isnan(own.x_SC)).sum(1),
    }


def _table(name: str, family: Family, places: pa.Table, columns: Columns) -> pa.Table:
    """Return a table with one row per state that has a mean."""
    count = len(family.places_S)
    placed = places.take(pa.array(family.places_S, pa.int64()))
    known = {
        "attribute": [family.attribute] * count,
        "measure": [family.measure] * count,
        "patch_kind": [family.patch_kind] * count,
        "noise_sigmas": [family.noise_sigmas] * count,
        **{name: placed[name] for name in placed.column_names},
        **columns,
    }
    return _arrow(name, known).filter(
        cast("pa.BooleanArray", pa.array(~np.isnan(columns["mean_ie"])))
    )


def _row(name: str, row: Mapping[str, Any]) -> pa.Table:
    return _arrow(name, {column: [value] for column, value in row.items()})


def _arrow(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """Return a table of `schemas.statistics`; NaN becomes null."""
    schema = STATISTICS[name]
    arrays: list[Any] = [
        columns[name].cast(kind)
        if isinstance(columns[name], pa.ChunkedArray)
        else pa.array(columns[name], kind, from_pandas=True)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.table(arrays, schema=schema)
