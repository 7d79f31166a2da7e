"""The manifest of an edit, `edit.json`: what was edited, how, and what it changed."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.concept import Concept

MANIFEST_VERSION = 1
"""Raised when a field changes its meaning."""


class Matrix(BaseModel):
    """One matrix that an edit changed."""

    model_config = ConfigDict(frozen=True)

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


class EditManifest(BaseModel):
    """What `edit.json` says; what a later dqf adds beside these fields is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    version: int
    model: str
    """As a user opens it: a built-in name, a folder, or a hub id with its commit."""
    model_hash: str
    concepts: tuple[Concept, ...]
    settings: dict[str, object] = Field(default_factory=dict)
    """Everything that determines the edited weights besides model and concepts."""
    matrices: tuple[Matrix, ...]
    lora: str
    """Which LoRA files there are, or why none."""
    versions: dict[str, str]
    """Of dqf and the libraries that solved it."""
    created: str
    """UTC, ISO 8601."""
