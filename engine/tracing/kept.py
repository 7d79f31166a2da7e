"""Images of one unit that are kept while it is traced: clean, corrupted, best and worst restored.

Shapes: R rows, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch

from engine.tracing.interventions import CLEAN, CORRUPTED, Patch
from schemas.intervention import Intervention


class Role(StrEnum):
    """The role of a kept image."""

    CLEAN = "clean"
    CORRUPTED = "corrupted"
    BEST = "best"
    """The patched run with the highest score."""
    WORST = "worst"
    """The patched run with the lowest score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One image that is kept."""

    role: Role
    image_CHW: torch.Tensor
    score: float
    patch: Patch | None = None
    """None for the clean and the corrupted run."""


@dataclass(slots=True, kw_only=True)
class ImageSelector:
    """Selects four images of a unit, which it sees batch by batch."""

    measure: str
    """The measure that selects."""
    intervention: Intervention
    """The patched runs among which the best and the worst are selected."""
    kept: dict[Role, Kept] = field(default_factory=dict[Role, Kept])

    @classmethod
    def of(cls, measures: Sequence[str], interventions: Sequence[Intervention]) -> "ImageSelector":
        """Return the selector of a plan: restored runs by the measure `target`, or else the first
        of each.

        The kept images thus follow a rule, not a choice.
        """
        return cls(
            measure="target" if "target" in measures else measures[0],
            intervention=(
                Intervention.RESTORE if Intervention.RESTORE in interventions else interventions[0]
            ),
        )

    def see_references(
        self, images_RCHW: torch.Tensor, measured: Sequence[Mapping[str, float]]
    ) -> None:
        """Keep the clean and the corrupted image."""
        for role, row in ((Role.CLEAN, CLEAN), (Role.CORRUPTED, CORRUPTED)):
            self._keep(role, images_RCHW[row], measured[row][self.measure])

    def see_patches(
        self,
        patches: Sequence[Patch],
        images_RCHW: torch.Tensor,
        measured: Sequence[Mapping[str, float]],
    ) -> None:
        """Keep the best and the worst of a batch if no earlier one is as good or as bad."""
        for patch, image_CHW, values in zip(patches, images_RCHW, measured, strict=True):
            if patch.intervention is not self.intervention:
                continue
            score = values[self.measure]
            if Role.BEST not in self.kept or score > self.kept[Role.BEST].score:
                self._keep(Role.BEST, image_CHW, score, patch)
            if Role.WORST not in self.kept or score < self.kept[Role.WORST].score:
                self._keep(Role.WORST, image_CHW, score, patch)

    def _keep(
        self, role: Role, image_CHW: torch.Tensor, score: float, patch: Patch | None = None
    ) -> None:
        # A copy, as a view would keep the images of the whole batch in memory.
        image = image_CHW.clone()
        self.kept[role] = Kept(role=role, image_CHW=image, score=score, patch=patch)
