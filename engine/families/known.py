"""The model families that dqf can open."""

from engine.families.family import Family
from engine.families.stable_diffusion import StableDiffusion

FAMILIES: dict[str, Family] = {family.pipeline: family for family in (StableDiffusion(),)}
"""By the pipeline class that `model_index.json` names."""
