"""An attack on an edit as a run: its plan, and the part files with its concepts' rows."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.runs.opening import open_as
from jobs.runs.run import Run
from schemas.attack import ATTACK_VERSION, ATTACKS, AttackIds, AttackPlan, AttackUnits
from schemas.concept import Concept


@dataclass(frozen=True)
class AttackRun(Run[Concept]):
    """An attack that exists."""

    noun = "attack"
    made_by = "dqf edit attack EDIT"
    named_by = "--out"
    version_field = "attack_version"
    reads_version = ATTACK_VERSION
    schema = ATTACKS

    @cached_property
    def plan(self) -> AttackPlan:
        """The plan."""
        return self._field("plan", AttackPlan)

    @cached_property
    def units(self) -> AttackUnits:
        """The units, in the plan's order."""
        return AttackUnits(self.plan)

    @cached_property
    def unit_ids(self) -> AttackIds:
        """The units' ids, in the plan's order."""
        manifest = self.manifest
        return self.units.ids(model_hash=manifest.model_hash, scorer_hash=manifest.scorer_hash)


def open_attack(location: str | Path) -> AttackRun:
    """Return the attack at `location`; StoreError: there is none that this dqf reads."""
    return open_as(AttackRun, location)
