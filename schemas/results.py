"""The results in the folders of an evaluation and of a sweep: their files, groups and rows."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]
"""A mean of cosines of float32 vectors, each to rounding."""
Count = Annotated[int, Field(ge=0)]
EVALUATION = "evaluation"
"""Folder of the evaluation in the folder of an edit or a sweep."""
SUMMARY = "evaluation.json"
"""File of an evaluation's folder that holds how the images came about, and every measure."""
PICTURES = "images"
"""Folder of an evaluation's pictures, one a group."""
SWEEP = "sweep.json"
"""File of a sweep's folder that holds the measures of each of its edits."""
EDITS = "edits"
"""Folder of the edits of a sweep."""
STILL_RECOGNISED, HARMONIC = "still_recognised", "harmonic mean"
"""Rows that pool groups: all prompts that mention a concept; these and the kept names together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """The measures of one group of an evaluation; null where there is nothing to measure.

    Intervals are of 95 %, by a bootstrap over names; they are null for a single name.
    """

    group: str
    """`still_recognised` pools concept, paraphrase, position, form and given; `kept` has neighbors
    too."""
    names: Count | None = None
    """Number of concepts or kept names; for general prompts, of prompts."""
    images: Count | None = None
    """Number of images by each of the two models."""
    before: Share | None = None
    """Share of unedited images that show the name in their prompt."""
    after: Share | None = None
    """The same for edited images; in the row `harmonic mean`, the mean H of 1 - still_recognised
    and kept."""
    after_low: Share | None = None
    after_high: Share | None = None
    right_before: Count | None = None
    """Number of images that the unedited model draws right."""
    of_right: Share | None = None
    """Share of these images that are still right after the edit; or H of these shares."""
    of_right_low: Share | None = None
    of_right_high: Share | None = None
    as_replacement: Share | None = None
    """Share of edited images of updated concepts that show the replacement."""
    as_replacement_low: Share | None = None
    as_replacement_high: Share | None = None
    as_replacement_of_right: Share | None = None
    """The same where the unedited image showed the concept."""
    clip_before: Cosine | None = None
    """Mean cosine of images with their own prompts (CLIPScore without its factor 2.5)."""
    clip_after: Cosine | None = None
    similarity: Cosine | None = None
    """Mean cosine of the edited with the unedited image."""
    cmmd: float | None = None
    """Distance of all edited from all unedited images of general prompts; 0 if they are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """The measures of one edit of a sweep; null where nothing is measured.

    `of_right` counts only images that the unedited model draws right.
    """

    edit: str
    is_best: bool = False
    """No other edit is as good in `still_recognised`, in `kept` (both `of_right`) and in CMMD, and
    better in one of them."""
    still_recognised: Share | None
    kept: Share | None
    harmonic_mean: Share | None
    still_recognised_of_right: Share | None
    kept_of_right: Share | None
    harmonic_of_right: Share | None
    harmonic_of_right_low: Share | None
    harmonic_of_right_high: Share | None
    as_replacement: Share | None
    clip_before: Cosine | None
    clip_after: Cosine | None
    cmmd: float | None
