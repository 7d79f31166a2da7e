"""An evaluation of an edit as a run: its plan, and the part files with its images' rows."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.editing.delta_file import check_evaluates
from jobs.runs.opening import open_as
from jobs.runs.run import Run
from schemas.evaluation import (
    EVALUATION_VERSION,
    IMAGES,
    EvaluationIds,
    EvaluationPlan,
    EvaluationUnit,
    EvaluationUnits,
)

EDIT = "edit"
"""Name of the edit where only one is evaluated."""


@dataclass(frozen=True)
class EvaluationRun(Run[EvaluationUnit]):
    """An evaluation that exists."""

    noun = "evaluation"
    made_by = "dqf edit evaluate EDIT"
    named_by = "--out"
    version_field = "evaluation_version"
    reads_version = EVALUATION_VERSION
    schema = IMAGES

    @cached_property
    def plan(self) -> EvaluationPlan:
        """The plan."""
        return self._field("plan", EvaluationPlan)

    @cached_property
    def units(self) -> EvaluationUnits:
        """The units, in the plan's order."""
        return EvaluationUnits(self.plan)

    @cached_property
    def unit_ids(self) -> EvaluationIds:
        """The units' ids, in the plan's order."""
        manifest = self.manifest
        return self.units.ids(model_hash=manifest.model_hash, scorer_hash=manifest.scorer_hash)


def open_evaluation_of(edit: Path, location: str | Path) -> EvaluationRun:
    """Return the evaluation of an edit at `location`; StoreError as `open_evaluation`.

    ConceptError: it is of another edit, or of those of a sweep.
    """
    run = open_evaluation(location)
    check_evaluates(edit, run.plan.edits.get(EDIT), run.location)
    return run


def open_evaluation(location: str | Path) -> EvaluationRun:
    """Return the evaluation at `location`; StoreError: there is none that this dqf reads."""
    return open_as(EvaluationRun, location)
