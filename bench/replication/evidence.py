"""The runs of a model as evidence: their results by one score, as rows or shares.

Intervals are of 95 %, over captions. Most come from the views; computed here are ratios of means.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.replication.intervals import Interval, resampled
from bench.replication.runs import RUN_TEXTS, run_folder
from jobs.query.opened import Views
from jobs.query.select import opened_views
from jobs.runs.trace_run import open_run
from schemas.component import Part
from schemas.errors import StoreError
from schemas.intervention import PatchKind

Row = dict[str, Any]
MEASURES = ("target", "caption")
"""Scores; claims are judged by the first, and also by the second."""
MIN_CAPTIONS = 8
"""An attribute with fewer captions is not judged."""
STATE = "patch_kind = 'state'"
"""Condition on rows of a component's whole output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The runs of a model, by one score."""

    model: str
    measure: str
    components: Views | None
    paths: Views | None
    sets: Views | None
    contributions: Views | None
    """Sets of the denoiser by what each component adds."""

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, model: str, measure: str) -> Iterator["Evidence"]:
        """Yield the evidence in a folder of runs, whose views are open until exit."""
        with ExitStack() as stack:
            views = {
                name: stack.enter_context(opened_finished(run_folder(folder, model, name)))
                for name in RUN_TEXTS
            }
            yield cls(model=model, measure=measure, **views)

    def by(self, measure: str) -> "Evidence":
        """Return the same runs by another score."""
        return replace(self, measure=measure)

    @property
    def runs(self) -> dict[str, Views | None]:
        """The runs by name."""
        return {name: getattr(self, name) for name in RUN_TEXTS}

    @property
    def attributes(self) -> list[str]:
        """The attributes of the runs' captions."""
        return list(
            dict.fromkeys(
                caption.attribute
                for views in self.runs.values()
                if views
                for caption in views.run.plan.captions
            )
        )

    def states(
        self, views: Views, attribute: str, part: Part, *, view: str = "ranking"
    ) -> list[Row]:
        """Return the restored components of an attribute and part, the strongest first."""
        return rows(
            views,
            f"FROM {view} WHERE attribute = '{attribute}' AND measure = '{self.measure}' AND "
            f"part = '{part}' AND {STATE} AND intervention = 'restore' "
            "ORDER BY mean_ie DESC, component",
        )


@contextmanager
def opened_finished(location: Path) -> Iterator[Views | None]:
    """Yield the views of a run that has scores; None if there is none."""
    try:
        run = open_run(location)
    except StoreError:
        yield None
        return
    with opened_views(run) as views:
        yield views if rows(views, "SELECT 1 FROM scores LIMIT 1") else None


def rows(views: Views, sql: str) -> list[Row]:
    """Return the rows of a statement."""
    return views.query(sql).to_pylist()


def share_of_total(
    views: Views,
    component: str,
    attribute: str,
    measure: str,
    *,
    intervention: str = "restore",
    patch: PatchKind = PatchKind.STATE,
) -> Interval:
    """Return mean indirect effect over mean total effect of a component or set: the share that it
    brings back restored, or takes away corrupted."""
    effects = effects_of(
        views, component, attribute, measure, intervention=intervention, patch=patch
    )
    ie, te = (np.array([row[name] for row in effects.values()]) for name in ("ie", "te"))
    return resampled(
        (ie, te),
        lambda ie, te, axis: ie.mean(axis=axis) / te.mean(axis=axis),
        seed=f"share {component} {attribute} {measure}",
    )


def lead(views: Views, component: str, other: str, attribute: str, measure: str) -> Interval | None:
    """Return by how much the share that one component or set brings back exceeds another's, over
    the captions that have both; None if there are fewer than three."""
    first, second = (
        effects_of(views, name, attribute, measure, intervention="restore")
        for name in (component, other)
    )
    both = [caption for caption in first if caption in second]
    if len(both) < 3:
        return None
    columns = [
        np.array([first[caption]["ie"] for caption in both]),
        np.array([second[caption]["ie"] for caption in both]),
        np.array([first[caption]["te"] for caption in both]),
    ]
    return resampled(
        columns,
        lambda ie, other_ie, te, axis: (ie - other_ie).mean(axis=axis) / te.mean(axis=axis),
        seed=f"lead {component} {other} {attribute} {measure}",
    )


def effects_of(
    views: Views,
    component: str,
    attribute: str,
    measure: str,
    *,
    intervention: str,
    patch: PatchKind = PatchKind.STATE,
) -> dict[str, Row]:
    """Return the indirect and total effect of a component or set on each caption, by its id."""
    found = rows(
        views,
        f"SELECT caption_id, ie, te FROM caption_effects WHERE component = '{component}' AND "
        f"attribute = '{attribute}' AND measure = '{measure}' AND intervention = '{intervention}' "
        f"AND patch_kind = '{patch}' ORDER BY caption_id",
    )
    return {row["caption_id"]: row for row in found}


def total_effect(views: Views, attribute: str, measure: str) -> Row | None:
    """Return the number of captions of an attribute, and their mean total effect with its
    interval; None without any."""
    tables = ("component_effects", "set_effects")
    for table in tables:
        found = rows(
            views,
            f"SELECT num_captions AS n, mean_te, te_low, te_high FROM {table} WHERE attribute = "
            f"'{attribute}' AND measure = '{measure}' AND intervention = 'restore' "
            "ORDER BY n DESC LIMIT 1",
        )
        if found:
            return found[0]
    return None


def unfit(views: Views | None, attribute: str, measure: str) -> str:
    """Return why an attribute cannot be judged, "" if it can."""
    if views is None:
        return "not traced"
    found = total_effect(views, attribute, measure)
    if not found or found["n"] < MIN_CAPTIONS:
        return f"{found['n'] if found else 0} captions"
    is_lowered = found["te_low"] is not None and found["te_low"] > 0
    return "" if is_lowered else "the corruption takes nothing away"


def effective_share(views: Views, attribute: str, part: Part, measure: str) -> Interval | None:
    """Return the effective number of components divided by the number of components."""
    found = concentration(views, attribute, part, measure)
    if not found or found["effective_components"] is None:
        return None
    effective = Interval.of(found, "effective_components", "effective_low", "effective_high")
    return effective / found["num_components"]


def concentration(views: Views, attribute: str, part: Part, measure: str) -> Row | None:
    """Return in how many components of a part the effects of an attribute are."""
    found = rows(
        views,
        f"FROM concentration WHERE attribute = '{attribute}' AND measure = '{measure}' "
        f"AND part = '{part}' AND {STATE}",
    )
    return found[0] if found else None


def overlap(views: Views, first: str, second: str, measure: str) -> Row | None:
    """Return the overlap of two attributes' causal components of the denoiser, in either order."""
    pair = f"('{first}', '{second}')"
    found = rows(
        views,
        f"FROM overlap WHERE measure = '{measure}' AND part = 'denoiser' AND {STATE} AND "
        f"attribute_a IN {pair} AND attribute_b IN {pair}",
    )
    return found[0] if found else None
