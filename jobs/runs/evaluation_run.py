"""The run that an evaluation of an edit is: its plan and the parts that hold its images' rows."""

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from pydantic_core import to_json

from engine.editing.delta import DELTA
from engine.files import is_file
from jobs.runs.parts import EMPTY_PACK, EMPTY_PART, write_part
from jobs.runs.provenance import Manifest
from jobs.runs.run import PLAN, Run
from jobs.runs.storage.opening import open_storage
from schemas.errors import ConceptError, StoreError
from schemas.evaluation import (
    EVALUATION_VERSION,
    IMAGES,
    EvaluationIds,
    EvaluationPlan,
    EvaluationUnit,
    EvaluationUnits,
)

EDIT = "edit"
"""The name of the edit where a single one is evaluated."""


@dataclass(frozen=True)
class EvaluationRun(Run[EvaluationUnit]):
    """An evaluation that exists."""

    resumed_by = "dqf edit evaluate"
    schema: pa.Schema = IMAGES

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
        return EvaluationIds(self.units, manifest.model_hash, manifest.scorer_hash)

    @property
    def chunk_units(self) -> int:
        """Units that are committed together."""
        return self.plan.chunk_units

    def complete(self) -> None:
        """Write the parts without rows, so that a query finds a table before the first unit."""
        for name in (EMPTY_PART, EMPTY_PACK):
            if not self.storage.exists(name):
                self.storage.create(name, write_part([], run_id=self.id, schema=self.schema))


def delta_hash(edit: Path) -> str:
    """Return the content hash of an edit's delta; ConceptError if the folder has none."""
    delta = edit / DELTA
    if not is_file(delta):
        raise ConceptError(f"{edit} is not an edit folder: it has no {DELTA}")
    return hashlib.blake2b(delta.read_bytes(), digest_size=16).hexdigest()


def open_evaluation(location: str | Path) -> EvaluationRun:
    """Return the evaluation at `location`; StoreError: there is none that this dqf reads."""
    run = EvaluationRun(open_storage(str(location)))
    try:
        version = run._document.get("evaluation_version")
    except FileNotFoundError:
        raise StoreError(f"no evaluation at {location}: `dqf edit evaluate` makes one") from None
    if version != EVALUATION_VERSION:
        raise StoreError(
            f"{location} is not an evaluation of version {EVALUATION_VERSION}: "
            "evaluate the edit again with another --out"
        )
    return run


def create_evaluation(
    location: str | Path, plan: EvaluationPlan, manifest: Manifest
) -> EvaluationRun:
    """Make an evaluation and return it, or the one of the same plan that is there.

    StoreError: something else is there, or the model or scorer has changed since.
    """
    storage = open_storage(str(location))
    if not storage.exists(PLAN) and storage.holds_anything():
        raise StoreError(f"{location} exists and is no evaluation: choose another --out")
    document = {
        "evaluation_version": EVALUATION_VERSION,
        "plan": plan,
        "manifest": asdict(manifest),
    }
    storage.create(PLAN, to_json(document, indent=1) + b"\n")
    run = open_evaluation(location)
    old, new = run.plan.model_dump(), plan.model_dump()
    differing = [name for name in new if new[name] != old[name]]
    differing += [
        name
        for name in ("model_hash", "scorer_hash")
        if getattr(run.manifest, name) != getattr(manifest, name)
    ]
    if differing:
        raise StoreError(
            f"{location} holds an evaluation with another {' and '.join(differing)}: choose "
            "another --out, or remove it"
        )
    return run
