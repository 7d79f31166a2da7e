"""Edits whose changes are made up, not solved."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from engine.editing.delta import weights_of
from engine.editing.solve import EditSolution
from engine.model.model import Diffusion
from jobs.editing.folder import write_edit
from jobs.editing.images import Shown
from jobs.editing.plan import EditPlan
from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from schemas.manifest import EditManifest, EditSite
from schemas.numerics import Numerics


def write_made_up_edit(
    folder: Path,
    model: Diffusion,
    changes: Mapping[str, torch.Tensor],
    concepts: Sequence[Concept],
    *,
    settings: EditSettings | None = None,
    full_model: bool = False,
) -> EditManifest:
    """Write the folder of an edit that adds `changes`, float64 by public name, to the weights."""
    folder.mkdir(parents=True)
    originals = {name: weights_of(model)[name].detach() for name in changes}
    plan = EditPlan(
        concepts=tuple(concepts),
        model=model.name,
        located=EditSite(component="text_encoder.layers.0.self_attn"),
        out=folder,
        settings=settings or EditSettings(),
        numerics=Numerics(steps=2),
        scorer="builtin:emoji-sd",
        full_model=full_model,
    )
    solved = EditSolution(
        weights={n: (w.double() + changes[n]).to(w.dtype) for n, w in originals.items()},
        changes=changes,
        originals=originals,
        key_pairs=1,
        kept_keys=0,
        key_seconds=0.0,
        solve_seconds=0.0,
    )
    return write_edit(folder, plan, model=model, solved=solved, shown=Shown())
