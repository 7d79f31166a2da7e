"""The plan of an edit: all that `edit_batch` needs to write its folder."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from engine.editing.solve import Collect, in_this_process
from engine.model.model import Diffusion
from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from schemas.manifest import EditSite
from schemas.numerics import Numerics


def in_process(model: Diffusion) -> AbstractContextManager[Collect]:
    """Return a context with the function that sums the keys in this process."""
    return nullcontext(in_this_process(model))


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPlan:
    """The concepts, components and settings of an edit, and the images that show it."""

    concepts: tuple[Concept, ...]
    model: str
    """A built-in name, a diffusers folder or a hub id."""
    located: EditSite
    """Reason for editing the first of the settings' components."""
    out: Path
    settings: EditSettings = field(default_factory=EditSettings)
    numerics: Numerics
    """Steps and guidance of the images before and after."""
    scorer: str
    """Scorer of the images."""
    images: int = 2
    """Images per prompt before and after; 0: none."""
    full_model: bool = False
    """Whether the folder gets a complete diffusers model too."""
    overwrite: bool = False
    """Whether an edit at `out` is replaced."""
    workers: Callable[[Diffusion], AbstractContextManager[Collect]] = in_process
    """Opens the function that sums the keys, in this process or on the workers of a Ray cluster."""
