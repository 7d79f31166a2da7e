"""Sweeping an edit's settings: the edits are made, evaluated together, and the best are marked.

All edits of a sweep share one evaluation, in which the unedited images are drawn once.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from engine.editing.delta_file import delta_hash
from engine.editing.editable import editables
from engine.files import check_writable, is_file, is_folder, new_folder, refuse_inside, write_whole
from engine.model.hub import source_folder
from engine.model.opening import check_model, open_model, open_skeleton, open_tokenizers
from engine.model.registry import default_scorer
from engine.model.vocabulary import read_phrasebook
from jobs.cluster.connection import Cluster
from jobs.editing.edit import edit_into
from jobs.editing.folder import portable_name
from jobs.editing.manifest import MANIFEST, read_manifest
from jobs.editing.plan import EditPlan
from jobs.editing.request import default_numerics
from jobs.editing.together import check_together
from jobs.evaluation.cut import warn_of_cuts
from jobs.evaluation.evaluate import EvaluationSettings, make_plan
from jobs.evaluation.measures import results
from jobs.evaluation.worker import EvaluationWorker
from jobs.pool.driver import drive_run
from jobs.pool.limits import Limits
from jobs.runs.evaluation_run import EvaluationRun, open_evaluation
from jobs.runs.opening import check_place, check_same, create_as
from jobs.runs.progress import Note, Progress
from jobs.runs.provenance import manifest_of
from jobs.runs.run import PLAN
from schemas.concept import MAX_WEIGHT, Concept
from schemas.edit_settings import EditSettings, RoleWeights
from schemas.errors import ConceptError, StoreError
from schemas.evaluation import Group
from schemas.manifest import EditSite
from schemas.results import (
    EDITS,
    EVALUATION,
    HARMONIC,
    STILL_RECOGNISED,
    SWEEP,
    GroupResult,
    SweepResult,
)


class Anchor(StrEnum):
    """The term that keeps other outputs unchanged, in addition to the ridge."""

    IDENTITY = "identity"
    """No further term, as in the published objective."""
    KEPT = "kept"
    """The keys of every other name."""
    GENERAL = "general"
    """The covariance of keys over general captions."""


MOST_EDITS = 1000
"""Most edits of a sweep."""
ROLES = {
    "all": RoleWeights(),
    "subject": RoleWeights(words=0.0, eos=0.0, pads=0.0),
    "no-pads": RoleWeights(pads=0.0),
    "few-pads": RoleWeights(pads=0.1),
}
"""Weights of the token roles of a concept's prompts, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The settings of a sweep; every combination gives one edit."""

    components: tuple[str, ...]
    anchors: tuple[Anchor, ...] = (Anchor.KEPT,)
    strengths: tuple[float, ...]
    """mu for the anchor `kept`, nu for `general`."""
    ridges: tuple[float, ...]
    roles: tuple[str, ...] = ("all",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One edit of a sweep."""

    anchor: Anchor
    strength: float | None
    ridge: float
    roles: str

    @property
    def name(self) -> str:
        """The name of the edit's folder."""
        strength = "" if self.strength is None else f"-{self.strength:g}"
        return f"{self.anchor}{strength}-ridge-{self.ridge:g}-{self.roles}"


def settings_of(grid: Grid) -> list[Setting]:
    """Return every combination of a grid; ConceptError if one of its values cannot be used."""
    for value in (*grid.ridges, *grid.strengths):
        if not 0 < value <= MAX_WEIGHT:
            raise ConceptError(
                f"ridges and strengths must be positive, up to {MAX_WEIGHT:g}: leave {value} out"
            )
    unknown = [name for name in grid.roles if name not in ROLES]
    if unknown:
        raise ConceptError(f"unknown roles {unknown[0]!r}: give {', '.join(ROLES)}")
    settings = [
        Setting(
            anchor=anchor,
            strength=None if anchor is Anchor.IDENTITY else strength,
            ridge=ridge,
            roles=roles,
        )
        for anchor, strength, ridge, roles in itertools.product(
            grid.anchors, grid.strengths, grid.ridges, grid.roles
        )
    ]
    distinct = list(dict.fromkeys(settings))
    if len(distinct) > MOST_EDITS:
        raise ConceptError(f"the grid has {len(distinct):,} edits, at most {MOST_EDITS}: try fewer")
    for name, count in Counter(setting.name for setting in distinct).items():
        if count > 1:
            raise ConceptError(f"{count} settings have one name, {name}: leave out all but one")
    return distinct


def prepare_sweep(
    concepts: tuple[Concept, ...],
    grid: Grid,
    out: Path,
    *,
    model: str,
    asked: EvaluationSettings,
    note: Note,
) -> EvaluationRun:
    """Make the missing edits of a sweep in the folder `out`; return the run of their evaluation.

    ConceptError, UnknownComponent, ModelUnavailable, StoreError: an edit or the evaluation cannot
    be made; the message says why.
    """
    settings = settings_of(grid)
    _check_out(out)
    check_model(model)
    check_together(concepts, tokenizers=list(open_tokenizers(model).values()), forms=True)
    grid = replace(grid, components=editables(open_skeleton(model), grid.components))
    scorer = asked.scorer or default_scorer(model)
    plans = {
        setting.name: EditPlan(
            concepts=concepts,
            model=model,
            located=EditSite(component=grid.components[0]),
            out=out / EDITS / setting.name,
            settings=_edit_settings(setting, grid.components),
            numerics=default_numerics(model),
            scorer=scorer,
            images=0,
        )
        for setting in settings
    }
    missing = [plan for plan in plans.values() if not _is_made(plan)]
    evaluation = make_plan(concepts, model=model, edits=dict.fromkeys(plans, ""), asked=asked)
    evaluation = evaluation.model_copy(update={"shown_seeds": 0})
    if is_file(out / EVALUATION / PLAN):
        made = open_evaluation(out / EVALUATION)
        same = made.plan.edits.keys() == plans.keys()
        check_same(made, evaluation.model_copy(update={"edits": made.plan.edits} if same else {}))
    if missing:
        note(f"opening {model} for {len(missing)} edits")
        _make(missing, note=note)
    hashes = {name: delta_hash(plan.out) for name, plan in plans.items()}
    plan = evaluation.model_copy(update={"edits": hashes})
    manifest = manifest_of(model=plan.model, scorer=plan.scorer)
    return create_as(EvaluationRun, out / EVALUATION, plan, manifest)


def sweep(
    run: EvaluationRun,
    out: Path,
    *,
    cluster: Cluster,
    retry_failed: bool,
    on_progress: Callable[[Progress], None],
    note: Note,
) -> tuple[Progress, list[SweepResult]]:
    """Evaluate the edits of a sweep in the folder `out`; return its progress and each measured.

    A unit that fails is recorded, and the others are still evaluated. A unit draws every edit, so
    that without it the edits are still compared over the same prompts.
    """
    check_writable(out / SWEEP, error=StoreError, within=out)
    warn_of_cuts(run.plan, note)
    edits = {name: str((out / EDITS / name).resolve()) for name in run.plan.edits}
    end = drive_run(
        run,
        cluster=cluster,
        worker_class=EvaluationWorker,
        options={"edits": edits},
        limits=Limits(failed=1.0),
        retry_failed=retry_failed,
        on_progress=on_progress,
        note=note,
    )
    swept = marked([_sweep_result(name, results(run, name)) for name in edits])
    content = json.dumps([asdict(result) for result in swept], indent=2, allow_nan=False)
    write_whole(out / SWEEP, f"{content}\n".encode(), within=out)
    return end, swept


def marked(swept: Sequence[SweepResult]) -> list[SweepResult]:
    """Return the results with the non-dominated ones marked, the highest harmonic mean first."""
    with_marks = [
        replace(t, is_best=not any(_dominates(other, t) for other in swept)) for t in swept
    ]
    return sorted(with_marks, key=lambda t: (-(t.harmonic_of_right or 0.0), t.edit))


def _dominates(one: SweepResult, other: SweepResult) -> bool:
    pairs = list(zip(_losses(one), _losses(other), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _losses(result: SweepResult) -> Iterator[float]:
    """Yield the numbers that should be low; a measure that is null for one edit is null for all."""
    yield result.still_recognised_of_right or 0.0
    yield -(result.kept_of_right or 0.0)
    yield result.cmmd or 0.0


def _sweep_result(name: str, measured: Sequence[GroupResult]) -> SweepResult:
    by_group = {result.group: result for result in measured}
    nothing = GroupResult(group="")
    still_recognised, kept, mean, general = (
        by_group.get(group, nothing)
        for group in (STILL_RECOGNISED, Group.KEPT, HARMONIC, Group.GENERAL)
    )
    return SweepResult(
        edit=name,
        still_recognised=still_recognised.after,
        kept=kept.after,
        harmonic_mean=mean.after,
        still_recognised_of_right=still_recognised.of_right,
        kept_of_right=kept.of_right,
        harmonic_of_right=mean.of_right,
        harmonic_of_right_low=mean.of_right_low,
        harmonic_of_right_high=mean.of_right_high,
        as_replacement=still_recognised.as_replacement,
        clip_before=general.clip_before,
        clip_after=general.clip_after,
        cmmd=general.cmmd,
    )


def _check_out(out: Path) -> None:
    """Raise StoreError unless a folder is a sweep's, empty, or one that can be made."""
    check_place(EvaluationRun, out / EVALUATION)
    refuse_inside(out, error=StoreError)
    is_new = not is_folder(out) or not any(out.iterdir())
    is_sweep = is_file(out / SWEEP) or is_folder(out / EDITS)
    if any(is_file(out / name) for name in (PLAN, MANIFEST)) or not (is_new or is_sweep):
        raise StoreError(f"{out} exists and holds no sweep: choose another --out")


def _is_made(plan: EditPlan) -> bool:
    """Return whether a plan's edit exists; ConceptError if another edit is in its place."""
    if not is_folder(plan.out):
        return False
    made = read_manifest(plan.out)
    same = {
        "concepts": made.concepts == plan.concepts,
        "settings": made.settings == plan.settings,
        "model": made.model == portable_name(plan.model),
    }
    other = [name for name, is_same in same.items() if not is_same]
    if other:
        raise ConceptError(
            f"{plan.out} is an edit of other {' and '.join(other)}: choose another --out"
        )
    return True


def _make(plans: Sequence[EditPlan], *, note: Note) -> None:
    model = open_model(plans[0].model)
    book = read_phrasebook(source_folder(plans[0].model))
    for plan in plans:
        with new_folder(plan.out) as work:
            edit_into(work, plan, model=model, book=book, note=lambda _: None)
        note(f"{plan.out.name} is made")


def _edit_settings(setting: Setting, components: tuple[str, ...]) -> EditSettings:
    strength = setting.strength or 0.0
    return EditSettings(
        components=components,
        ridge=setting.ridge,
        preserve=strength if setting.anchor is Anchor.KEPT else 0.0,
        general=strength if setting.anchor is Anchor.GENERAL else 0.0,
        roles=ROLES[setting.roles],
    )
