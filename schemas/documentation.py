"""The meaning of every view of a run, for `dqf query --schema` and the comments of the catalog."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from schemas.attack import ATTACKS
from schemas.columns import COUNT, INTEGER, MEANING, REAL, TEXT, UNIT, fields
from schemas.errors import QueryRefused
from schemas.evaluation import CONCEPTS, IMAGES
from schemas.statistics import (
    CONCENTRATION,
    CONTROLLED,
    OVERLAP,
    RANKING,
    SET_CURVES,
    SET_EFFECTS,
)
from schemas.tables import CAPTIONS, COMPONENTS, SCORES, SLABS, UNITS
from schemas.views import STATE, identifier, quoted

SQL_TYPES: dict[pa.DataType, str] = {
    TEXT: "VARCHAR",
    REAL: "DOUBLE",
    INTEGER: "INTEGER",
    COUNT: "BIGINT",
    pa.bool_(): "BOOLEAN",
    pa.float32(): "FLOAT",
    pa.binary(): "BLOB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a view."""

    name: str
    type: str
    """As DuckDB writes it."""
    unit: str
    meaning: str

    @property
    def comment(self) -> str:
        """The meaning, followed by the unit where the column has one."""
        return f"{self.meaning} [{self.unit}]" if self.unit else self.meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view of a run."""

    name: str
    meaning: str
    """The meaning of one row, and the use of the view."""
    columns: tuple[Column, ...]


def _column(field: "pa.Field[Any]") -> Column:
    """Return the column that a field describes."""
    metadata: dict[bytes, bytes] = field.metadata or {}
    return Column(
        name=field.name,
        type=_sql_type(field.type),
        unit=metadata.get(UNIT, b"").decode(),
        meaning=metadata.get(MEANING, b"").decode(),
    )


def documented(names: Sequence[str] = ()) -> list[View]:
    """Return the named views of any kind of run, by default all; QueryRefused for an unknown
    name."""
    known = {view.name: view for views in VIEWS_OF.values() for view in views}
    for name in names:
        if name not in known:
            raise QueryRefused(f"there is no view {name!r}: there are {', '.join(known)}")
    return [known[name] for name in names or known]


def _sql_type(kind: Any) -> str:
    """Return a type as DuckDB writes it."""
    members: list[pa.Field[Any]] = [kind.field(number) for number in range(kind.num_fields)]
    if pa.types.is_list(kind):
        return f"{_sql_type(members[0].type)}[]"
    if pa.types.is_struct(kind):
        listed = (f"{identifier(member.name)} {_sql_type(member.type)}" for member in members)
        return f"STRUCT({', '.join(listed)})"
    return SQL_TYPES[kind]


def _but(columns: "Iterable[pa.Field[Any]]", *names: str) -> "list[pa.Field[Any]]":
    return [field for field in columns if field.name not in names]


def _view(name: str, columns: "Iterable[pa.Field[Any]]", meaning: str) -> View:
    return View(name=name, meaning=meaning, columns=tuple(map(_column, columns)))


_TRIALS: "list[pa.Field[Any]]" = [*SCORES, *_but(CAPTIONS, "caption_id")]
_RANKED = _but(RANKING, "is_causal")

VIEWS = (
    _view("captions", CAPTIONS, "One row per caption of the plan."),
    _view("slabs", SLABS, "One row per slab of components and windows."),
    _view("units", UNITS, "One row per unit of work of the plan, done or not."),
    _view("components", COMPONENTS, "One row per traced component."),
    _view(
        "set_members",
        fields("set_name attribute curve component part token step_start step_stop"),
        "One row per component of a set, and attribute whose captions are traced with the set.",
    ),
    _view("scores", SCORES, "One row per patched run and measure, as the workers wrote it."),
    _view("commits", fields("chunk generation units failures"), "One row per committed chunk."),
    _view(
        "failures",
        fields("unit_id error message traceback chunk generation"),
        "One row per unit that failed when it was last tried.",
    ),
    _view("trials", _TRIALS, "`scores` with the caption's columns."),
    _view(
        "effects",
        [*_TRIALS, *fields("total_effect indirect_effect recovery")],
        "`trials` with its effects: the rows that everything below is computed from.",
    ),
    _view(
        "caption_effects",
        fields(f"{' '.join(STATE)} intervention caption_id ie te recovery num_trials"),
        "One row per state, intervention and caption.",
    ),
    _view(
        "component_effects",
        _but(_RANKED, "rank", "controls"),
        "One row per state and intervention: means over captions, intervals, tests.",
    ),
    _view("ranking", RANKING, "`component_effects` with ranks and the verdict."),
    _view(
        "controlled_effects",
        CONTROLLED,
        "One row per restored state and control, over the captions that have both.",
    ),
    _view(
        "causal_states",
        _RANKED,
        "The rows of `ranking` that are causal: their q_causal is under 0.05.",
    ),
    _view(
        "overlap",
        OVERLAP,
        "One row per pair of attributes: how many causal states they share, how alike they are.",
    ),
    _view(
        "concentration",
        CONCENTRATION,
        "One row per attribute, part, patch_kind, noise_sigmas, measure: in how few components its "
        "effects are.",
    ),
    _view(
        "set_effects",
        SET_EFFECTS,
        "One row per set of components that are patched together, and intervention.",
    ),
    _view(
        "set_curves",
        SET_CURVES,
        "One row per size of the sets that `dqf trace sets RUN` chose: restored, how much of the "
        "total effect they bring back; corrupted, how much they take.",
    ),
)
"""The views of a run, each after those that it is computed from."""
_WORK = tuple(view for view in VIEWS if view.name in ("commits", "failures"))
VIEWS_OF = {
    "run": VIEWS,
    "evaluation": (
        _view("images", IMAGES, "One row per edit, prompt and seed: both models' images."),
        _view("concepts", CONCEPTS, "One row per edit and concept: which of them are still drawn."),
        *_WORK,
    ),
    "attack": (
        _view("attacks", ATTACKS, "One row per concept, model and attack: what its images show."),
        *_WORK,
    ),
}
"""The views of each kind of run by its noun."""


def comments(kind: Literal["VIEW", "TABLE"]) -> Iterator[str]:
    """Yield the statements that write the documentation into a database of views or tables."""
    for view in VIEWS:
        yield f"COMMENT ON {kind} {view.name} IS {quoted(view.meaning)}"
        for column in view.columns:
            yield f"COMMENT ON COLUMN {view.name}.{column.name} IS {quoted(column.comment)}"
