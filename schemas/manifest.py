"""The manifest of an edit, `edit.json`: what was edited, how, why there, and what it changed."""

from pydantic import BaseModel, ConfigDict

from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from schemas.numerics import Numerics

MANIFEST_VERSION = 3
"""Raised when a field comes, goes or changes its meaning."""


class _Declared(BaseModel):
    """A part of the manifest: it holds its declared fields and no other."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Matrix(_Declared):
    """One matrix that an edit changed."""

    name: str
    """Public name: the pipeline's part and the parameter's name in it."""
    shape: tuple[int, ...]
    rank: int
    """Of the change, above float32 rounding of the original."""
    norm_before: float
    """Frobenius norm of the original, |W0|."""
    relative_change: float
    """Frobenius norm of the change over that of the original, |dW| / |W0|."""
    hash_before: str
    hash_after: str
    """blake2b of the matrix as float32 bytes."""


class EditSite(_Declared):
    """The component to edit, and why."""

    component: str
    run: str | None = None
    """The run whose ranking named it; None where the user did."""
    attribute: str | None = None
    """The attribute that was ranked; None for all pooled, or where the user named the component."""
    mean_ie: float | None = None
    """Mean indirect effect of the component on the score against the target."""
    se_ie: float | None = None
    """Its standard error over captions; None where the run has one caption."""
    token: str | None = None
    """The token role at which it was restored."""
    ie_low: float | None = None
    ie_high: float | None = None
    """Its 95 % interval over captions; None where an end is unknown or has no bound."""
    num_captions: int | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether a run located it but the 95 % interval of its effect reaches zero."""
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
    """What an edit was asked for, what it did, and what it takes to make it again."""

    version: int
    model: str
    """As a user opens it: a built-in name, a folder, or a hub id with its commit."""
    model_hash: str
    concepts: tuple[Concept, ...]
    settings: EditSettings
    located: EditSite
    numerics: Numerics
    """Of the images before and after."""
    scorer: str
    """Of the images before and after."""
    key_pairs: int
    kept_keys: int
    key_seconds: float
    """Collecting the keys of concepts and of what is kept."""
    solve_seconds: float
    scores: tuple[ConceptScores, ...]
    """Empty where no images were asked for."""
    untouched_change: float | None
    """Mean change of the CLIPScore of untouched concepts against their own text."""
    matrices: tuple[Matrix, ...]
    lora: str
    """Which LoRA files there are, or why none."""
    versions: dict[str, str]
    """Of dqf and the libraries that solved it."""
    created: str
    """UTC, ISO 8601."""
