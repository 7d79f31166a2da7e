"""A small model of few names, and edits of it made by hand."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from engine.editing.delta import weights_of
from engine.model.opening import open_model
from engine.model.registry import EMOJI_SD
from schemas.concept import Concept
from tests.made_up.edits import write_made_up_edit

WEIGHT = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
VOCABULARY = {
    "objects": ["cat", "dog", "bus", "house", "guitar", "banana"],
    "styles": ["noto", "neon"],
    "colors": ["natural", "red", "green"],
}
CONCEPTS = (Concept(concept="cat", replacement="bus"), Concept(concept="house"))


def few_names(folder: Path) -> Path:
    """Return the folder of emoji-sd with a vocabulary of six objects."""
    shutil.copytree(EMOJI_SD, folder, ignore=shutil.ignore_patterns("scorer"))
    (folder / "vocabulary.json").write_text(json.dumps(VOCABULARY))
    return folder


def write_edit(
    folder: Path,
    model: Path,
    change: Callable[[torch.Tensor], torch.Tensor],
    concepts: Sequence[Concept] = CONCEPTS,
) -> Path:
    """Write an edit's folder whose weight is `change` of the model's own."""
    opened = open_model(str(model))
    original = weights_of(opened)[WEIGHT].detach()
    changes = {WEIGHT: change(original.clone()).double() - original.double()}
    write_made_up_edit(folder, opened, changes, concepts)
    return folder
