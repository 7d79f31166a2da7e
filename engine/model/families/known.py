"""The model families that dqf can open: its own, and those of installed packages."""

from collections.abc import Iterator
from importlib.metadata import entry_points

from engine.model.families.cross_attention import PixArtAlpha, PixArtSigma
from engine.model.families.deepfloyd import DeepFloydIF
from engine.model.families.flux2 import Flux2, Flux2Klein
from engine.model.families.joint_attention import Flux, StableDiffusion3
from engine.model.families.qwen_image import QwenImage
from engine.model.families.sana import Sana, SanaSprint
from engine.model.families.sdxl import StableDiffusionXL
from engine.model.families.stable_diffusion import LatentConsistency, StableDiffusion
from engine.model.families.z_image import ZImage
from engine.model.model import Family

GROUP = "dqf.families"
"""The entry points by which packages name subclasses of `Family`."""


def installed_families() -> Iterator[Family]:
    """Yield the families of other packages; TypeError: an entry point names something else."""
    for entry in entry_points(group=GROUP):
        kind = entry.load()
        if not (isinstance(kind, type) and issubclass(kind, Family)):
            raise TypeError(
                f"entry point {entry.name} of {GROUP} is {kind!r}: it must be a subclass of Family"
            )
        yield kind()


FAMILIES: dict[str, Family] = {
    family.pipeline: family
    for family in (
        *installed_families(),
        StableDiffusion(),
        LatentConsistency(),
        StableDiffusionXL(),
        DeepFloydIF(),
        PixArtAlpha(),
        PixArtSigma(),
        Sana(),
        SanaSprint(),
        StableDiffusion3(),
        Flux(),
        ZImage(),
        QwenImage(),
        Flux2(),
        Flux2Klein(),
    )
}
"""By the pipeline class that `model_index.json` names; a package cannot take over one of dqf's."""
