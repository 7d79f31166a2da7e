"""The model families that dqf can open."""

from engine.families.deepfloyd import DeepFloydIF
from engine.families.family import Family
from engine.families.sdxl import StableDiffusionXL
from engine.families.stable_diffusion import LatentConsistency, StableDiffusion

FAMILIES: dict[str, Family] = {
    family.pipeline: family
    for family in (StableDiffusion(), LatentConsistency(), StableDiffusionXL(), DeepFloydIF())
}
"""By the pipeline class that `model_index.json` names."""
