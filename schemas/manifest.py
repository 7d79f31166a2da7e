"""The manifest of an edit, `edit.json`: what was edited, how, where and why, and what changed."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from schemas.numerics import Numerics

MANIFEST_VERSION = 4
"""Raised when a field is added, removed or changes its meaning."""


class _Declared(BaseModel):
    """Base of the manifest's parts, which hold their declared fields and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Matrix(_Declared):
    """One matrix that an edit changed."""

    name: str
    """Public name: the pipeline's part and the parameter's name in it."""
    shape: tuple[int, ...]
    rank: Annotated[int, Field(ge=0)]
    """Rank of the change, above the float32 rounding of the original."""
    norm_before: Annotated[float, Field(gt=0)]
    """Frobenius norm of the original, |W0|."""
    relative_change: Annotated[float, Field(ge=0)]
    """Frobenius norm of the change over that of the original, |dW| / |W0|."""
    hash_before: str
    hash_after: str
    """blake2b of the matrix as float32 bytes."""


class EditSite(_Declared):
    """The component to edit, and why."""

    component: str
    run: str | None = None
    """Run whose ranking named the component; None where the user named it."""
    attribute: str | None = None
    """Attribute that was ranked; None where all were pooled or the user named the component."""
    mean_ie: float | None = None
    """Mean indirect effect of the component on the score against the target."""
    se_ie: float | None = None
    """The standard error of `mean_ie` over captions; None where the run has one caption."""
    token: str | None = None
    """Token role at which the component was restored."""
    ie_low: float | None = None
    ie_high: float | None = None
    """The 95 % interval of `mean_ie` over captions; None where an end is unknown or unbounded."""
    num_captions: int | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether a run located the component although the 95 % interval of its effect reaches
        zero."""
        if self.mean_ie is None:
            return False
        return self.ie_low is None or self.ie_low <= 0


class ConceptScores(_Declared):
    """Mean CLIPScores (cosines) of the images of a concept's prompts, before and after."""

    concept: str
    replacement: str
    kind: str
    concept_before: float
    concept_after: float
    """Against the concept's text."""
    replacement_before: float
    replacement_after: float
    """Against the replacement's text."""


class EditManifest(_Declared):
    """The request of an edit, its result, and all that is needed to repeat it."""

    version: int
    model: str
    """As a user opens it: a built-in name, a folder, or a hub id with its commit."""
    model_hash: str
    concepts: Annotated[tuple[Concept, ...], Field(min_length=1)]
    settings: EditSettings
    located: EditSite
    numerics: Numerics
    """Settings of sampling the images before and after."""
    scorer: str
    """Scorer of the images before and after."""
    key_pairs: int
    kept_keys: int
    key_seconds: float
    """Time of collecting the keys of concepts and kept names."""
    solve_seconds: float
    scores: tuple[ConceptScores, ...]
    """Empty where no images were requested."""
    untouched_change: float | None
    """Mean change of the CLIPScore of untouched concepts against their own text."""
    matrices: tuple[Matrix, ...]
    lora: str
    """Which LoRA files were written, or why none."""
    versions: dict[str, str]
    """Versions of dqf and of the libraries that solved the edit."""
    created: str
    """UTC, ISO 8601."""
