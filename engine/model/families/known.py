"""The model families that dqf can open."""

from engine.model.families.deepfloyd import DeepFloydIF
from engine.model.families.sdxl import StableDiffusionXL
from engine.model.families.stable_diffusion import LatentConsistency, StableDiffusion
from engine.model.model import Family

FAMILIES: dict[str, Family] = {
    family.pipeline: family
    for family in (StableDiffusion(), LatentConsistency(), StableDiffusionXL(), DeepFloydIF())
}
"""By the pipeline class that `model_index.json` names."""
