"""A table of the model families: python -m bench.families [--model flux-dev] [--format json].

Each row is a published architecture. At full size, on the meta device, it has the denoiser's
parameters, live components by kind (heads apart), the components on which no image depends, what an
edit can change, and the parts into which an edit's LoRA can be loaded. With random weights and
reduced widths, as the families' tests have them, it has the largest difference of random plans'
images from the naive oracle's, and of an image from that of diffusers' own pipeline, in [0, 1].
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cli.printing.output import Format, print_rows
from engine.editing.editable import editable_components
from engine.editing.lora import kohya_tools, loadable_parts, peft_tools
from engine.model.components import list_components
from engine.model.families.stable_diffusion import StableDiffusion
from engine.model.model import Skeleton
from engine.model.opening import open_model
from engine.model.sampling import generate
from engine.testing.families import FamilyTests, part_of
from engine.testing.pipelines import pipeline_image
from engine.testing.plans import oracle_differences, random_plan
from schemas.component import Component, Kind, Part
from tests.engine.model import test_language_models as language_models
from tests.engine.model import test_transformers as transformers
from tests.engine.model import test_unets as unets
from tests.models.full_sizes import FULL_SIZES
from tests.models.tiny import build_pipeline
from tests.models.transformers import build_sd3

PLANS = 2
"""Random plans of each part."""


class StableDiffusion1(FamilyTests):
    """Stable Diffusion 1."""

    family = StableDiffusion()

    def build(self) -> Any:
        """Return the tiny pipeline."""
        return build_pipeline()


class StableDiffusion3Medium(transformers.TestStableDiffusion3):
    """SD3 medium: no second attention of the image, no norm of queries and keys."""

    def build(self) -> Any:
        """Return the tiny pipeline."""
        return build_sd3(dual_attention_layers=(), qk_norm=None)


class StableDiffusion35Large(transformers.TestStableDiffusion3):
    """SD3.5 large: no second attention of the image."""

    def build(self) -> Any:
        """Return the tiny pipeline."""
        return build_sd3(dual_attention_layers=())


CASES: Mapping[str, type[FamilyTests]] = {
    "sd-1.4": StableDiffusion1,
    "sdxl": unets.TestStableDiffusionXL,
    "if-stage-1": unets.TestDeepFloydIF,
    "pixart-alpha": transformers.TestPixArtAlpha,
    "pixart-sigma": transformers.TestPixArtSigma,
    "sana": transformers.TestSana,
    "sana-sprint": transformers.TestSanaSprint,
    "sd-3": StableDiffusion3Medium,
    "sd-3.5-medium": transformers.TestStableDiffusion3,
    "sd-3.5-large": StableDiffusion35Large,
    "flux-dev": transformers.TestFluxDev,
    "flux-schnell": transformers.TestFluxSchnell,
    "flux2-dev": language_models.TestFlux2,
    "flux2-klein-4b": language_models.TestFlux2Klein,
    "z-image": language_models.TestZImage,
    "qwen-image": language_models.TestQwenImage,
}
"""The model of reduced width that stands for each published one."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--format", type=Format, default=Format.TABLE, choices=list(Format))
    options = parser.parse_args()
    print_rows([row_of(name) for name in options.model], options.format)


def row_of(name: str) -> dict[str, object]:
    """Return a published architecture's row."""
    return {
        "model": name,
        **at_full_size(FULL_SIZES[name].open(name)),
        **at_reduced_width(CASES[name]()),
    }


def at_full_size(model: Skeleton) -> dict[str, object]:
    """Return the columns that configs alone decide."""
    found = list_components(model)
    denoiser = [c for c in found if c.part is Part.DENOISER]
    editable = editable_components(model, with_shared=True)
    return {
        "parameters": sum(weight.numel() for weight in model.denoiser.parameters()),
        "components": _counted(c for c in denoiser if not c.is_dead and c.kind is not Kind.HEAD),
        "text_components": _counted(
            c for c in found if c.part is Part.TEXT_ENCODER and c.kind is not Kind.HEAD
        ),
        "heads": sum(c.kind is Kind.HEAD and not c.is_dead for c in found),
        "dead": ", ".join(c.name for c in found if c.is_dead and c.kind is not Kind.HEAD),
        "editable": _counted(editable),
        "lora": _lora(model, editable),
    }


def _lora(model: Skeleton, editable: Iterable[Component]) -> str:
    """Return the parts into which an edit's LoRA can be loaded, and by which tools."""
    edited = dict.fromkeys(part_of(component.name) for component in editable)
    parts = [part for part in edited if part in loadable_parts(model)]
    tools = dict.fromkeys([*peft_tools(model), *kohya_tools(model)])
    return f"{', '.join(parts)} by {', '.join(tools)}" if parts else "none"


def _counted(components: Iterable[Component]) -> str:
    """Return the numbers of components by kind, and by the part where that is a text encoder."""
    counts = Counter(
        f"{c.kind} of {part_of(c.name)}" if c.part is Part.TEXT_ENCODER else str(c.kind)
        for c in components
    )
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def at_reduced_width(case: FamilyTests) -> dict[str, object]:
    """Return the differences of images from the oracle and from the pipeline."""
    text, numerics = case.caption.caption, case.numerics
    with tempfile.TemporaryDirectory() as folder:
        case.build().save_pretrained(folder)
        model = open_model(folder, device="cpu")
        pipeline = case.open_pipeline(Path(folder))
    image = pipeline_image(pipeline, text, seed=3, numerics=numerics, **case.pipeline_options)
    own = generate(model, [text], seeds=[3], numerics=numerics)
    differences = [
        difference
        for part in Part
        for seed in range(PLANS)
        for difference in oracle_differences(
            model, random_plan(model, case.caption, numerics, part=part, seed=seed)
        ).values()
    ]
    return {
        "runs": len(differences),
        "oracle_difference": max(differences),
        "image_difference": float((own - image).abs().max()),
    }


if __name__ == "__main__":
    main()
