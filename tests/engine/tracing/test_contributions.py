"""What a component adds to its input, and cut points: each against a second definition."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.components import Site, list_sites
from engine.model.cut_points import cut_points
from engine.model.hooks import ActivationCopy, HookPoint, copy_rows, patched
from engine.model.model import Diffusion
from engine.model.opening import open_model, open_skeleton
from engine.model.scorer import open_scorer
from engine.tracing.interventions import CLEAN, CORRUPTED, Patch
from engine.tracing.trace_unit import trace_images, trace_unit
from schemas.caption import Caption
from schemas.component import TEXT_ENTRIES, Kind, Part
from schemas.intervention import Intervention, PatchKind, TokenRole
from schemas.numerics import Numerics
from schemas.unit import Unit
from tests.rounding import assert_near

CAPTION = Caption(caption="a red apple on a wooden table", subject="red apple", attribute="object")
NUMERICS = Numerics(steps=3)
MARGIN = 1e-3
SOURCE, ROW = 0, 1
RESNET, ATTENTION = (
    "unet.down_blocks.1.resnets.0",
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"),
)


@pytest.fixture(scope="module")
def model(tiny_sd: Path) -> Diffusion:
    return open_model(str(tiny_sd), device="cpu")


@pytest.fixture(scope="module")
def sites(model: Diffusion) -> dict[str, Site]:
    return {site.component.name: site for site in list_sites(model)}


def unit_of(*components: str, **options: Any) -> Unit:
    part = Part.TEXT_ENCODER if components[0].startswith("text_encoder") else Part.DENOISER
    defaults: dict[str, Any] = {"caption": CAPTION, "seed": 3, "draw": 0, "windows": ((0, 3),)}
    return Unit(part=part, components=components, **(defaults | options))


@torch.no_grad()
def output_of_row(model: Diffusion, *, alike: str) -> torch.Tensor:
    """Return the UNet's output for a row; it differs from the source by all but what is `alike`."""
    generator = torch.Generator().manual_seed(0)
    size, config = model.denoiser.config.sample_size, model.denoiser.config
    x = torch.randn(2, config.in_channels, size, size, generator=generator)
    text = torch.randn(2, 5, config.cross_attention_dim, generator=generator)
    if alike == "text":
        text[ROW] = text[SOURCE]
    return model.denoiser(x, torch.tensor(500), encoder_hidden_states=text).sample


def copied(site: Site, *, is_contribution: bool) -> dict[HookPoint, Any]:
    spots = site.increments if is_contribution else (site.spot,)
    return {spot: copy_rows([ActivationCopy(row=ROW, sources=(SOURCE,))]) for spot in spots}


def residual_hook(skip: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """Return the hook that gives the row its own input and what the source's output adds to its."""

    def hook(_module: Any, args: Any, output: Any) -> Any:
        whole = output[0] if isinstance(output, tuple) else output
        through = skip(args[0])
        whole = whole.clone()
        whole[ROW] = through[ROW] + whole[SOURCE] - through[SOURCE]
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    return hook


def skip_of(resnet: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: resnet.conv_shortcut(x) if resnet.conv_shortcut is not None else x


def by_hand(model: Diffusion, modules: list[Any]) -> torch.Tensor:
    """Return the row's output where what each module adds is the source's, by its input and
    output."""
    hooks = [
        module.register_forward_hook(
            residual_hook(skip_of(module) if hasattr(module, "conv2") else lambda x: x)
        )
        for module in modules
    ]
    try:
        return output_of_row(model, alike="")[ROW]
    finally:
        for hook in hooks:
            hook.remove()


def test_a_resnets_contribution_is_its_output_without_its_input(
    model: Diffusion, sites: dict[str, Site]
) -> None:
    resnets = [site for site in sites.values() if site.component.kind is Kind.RESNET]
    assert any(site.module.conv_shortcut is not None for site in resnets)
    for site in resnets:
        with patched(copied(site, is_contribution=True)):
            found = output_of_row(model, alike="")[ROW]
        assert_near(found, by_hand(model, [site.module]), site.component.name)
        with patched(copied(site, is_contribution=False)):
            state = output_of_row(model, alike="")[ROW]
        assert float((state - found).abs().mean()) > MARGIN, site.component.name


def test_a_blocks_contribution_is_that_of_its_modules(
    model: Diffusion, sites: dict[str, Site]
) -> None:
    for site in sites.values():
        if site.component.kind is not Kind.BLOCK:
            continue
        block: Any = site.module
        modules = [*block.resnets, *(getattr(block, "attentions", None) or [])]
        with patched(copied(site, is_contribution=True)):
            found = output_of_row(model, alike="")[ROW]
        assert_near(found, by_hand(model, modules), site.component.name)


@torch.no_grad()
def test_a_text_layers_contribution_is_its_output_without_its_input(
    model: Diffusion, sites: dict[str, Site]
) -> None:
    site = sites["text_encoder.layers.0"]
    ids = model.tokenizer(["a red apple", "an old ship"], padding="max_length").input_ids

    def rows() -> torch.Tensor:
        return model.text_encoder(torch.tensor(ids)).last_hidden_state[ROW]

    with patched(copied(site, is_contribution=True)):
        found = rows()
    hook = site.module.register_forward_hook(residual_hook(lambda x: x))
    expected = rows()
    hook.remove()
    assert_near(found, expected, "layer")
    assert float((found - rows()).abs().mean()) > MARGIN


def test_attentions_have_no_contribution_besides_their_output(sites: dict[str, Site]) -> None:
    with_one = {site.component.kind for site in sites.values() if site.component.has_contribution}
    assert with_one == {Kind.RESNET, Kind.BLOCK, Kind.LAYER}
    assert all(
        site.component.has_contribution == (site.component.kind in with_one)
        for site in sites.values()
    )


def test_a_cut_points_state_alone_decides_what_follows(
    tiny_sd: Path, model: Diffusion, sites: dict[str, Site]
) -> None:
    """With the text of the source, a row that gets a cut point's state ends where the source does,
    whatever its latent; with any other state it does not."""
    cuts = cut_points(open_skeleton(str(tiny_sd)))
    found = set()
    for name, site in sites.items():
        if site.component.part is Part.DENOISER and site.component.kind is not Kind.HEAD:
            with patched(copied(site, is_contribution=False)):
                output = output_of_row(model, alike="text")
            if float((output[ROW] - output[SOURCE]).abs().max()) < 1e-5:
                found.add(name)
    assert found == {name for name in cuts if name.startswith("unet")}
    assert len(found) == 2  # the last resnet, and the last block


def test_a_unit_traces_states_and_contributions(
    model: Diffusion, tiny_scorer: Path, sites: dict[str, Site]
) -> None:
    unit = unit_of(
        RESNET, ATTENTION, "unet.mid_block", patches=tuple(PatchKind), windows=((0, 3), (1, 2))
    )
    trials = trace_unit(
        model, open_scorer(str(tiny_scorer)), unit, numerics=NUMERICS, rows=4, measures=("caption",)
    )
    kinds = {(t.component, t.patch_kind, t.step_start): t.patched for t in trials}
    assert len(kinds) == len(trials) == 2 * (2 + 1 + 2)
    assert {kind for name, kind, _ in kinds if name == ATTENTION} == {PatchKind.STATE}
    for start in (0, 1):
        state, contribution = (kinds[RESNET, kind, start] for kind in PatchKind)
        assert abs(state - contribution) > 1e-6


def test_a_restored_contribution_is_the_increments_of_the_clean_run(
    model: Diffusion, sites: dict[str, Site]
) -> None:
    """The whole trace of a contribution equals one whose sites are its increments, patched as
    states."""
    unit = unit_of(
        "text_encoder.layers.0", tokens=(TokenRole.SUBJECT,), patches=(PatchKind.CONTRIBUTION,)
    )
    _, images = trace_images(model, unit, numerics=NUMERICS, rows=8)
    ((patch, image),) = images.items()
    assert isinstance(patch, Patch)
    assert (patch.patch_kind, patch.base, patch.sources) == ("contribution", CORRUPTED, (CLEAN,))
    layer = sites["text_encoder.layers.0"].module
    assert {site.spot.module for site in patch.sites} == {layer.self_attn, layer.mlp}
    _, states = trace_images(
        model,
        unit_of("text_encoder.layers.0", tokens=(TokenRole.SUBJECT,)),
        numerics=NUMERICS,
        rows=8,
    )
    assert float((image - next(iter(states.values()))).abs().mean()) > 0


def test_all_text_entries_together_are_the_other_run(model: Diffusion) -> None:
    """Text enters this UNet by cross-attention alone: with all of them restored at every step the
    image is the clean one, with all corrupted it is the corrupted one; controls have no bound."""
    interventions = (Intervention.RESTORE, Intervention.CORRUPT, Intervention.OTHER_SEED)
    unit = unit_of(TEXT_ENTRIES, interventions=interventions)
    references, images = trace_images(model, unit, numerics=NUMERICS, rows=8)
    by_intervention = {patch.intervention: image for patch, image in images.items()}
    assert set(by_intervention) == {Intervention.RESTORE, Intervention.CORRUPT}
    assert float((references[CLEAN] - references[CORRUPTED]).abs().mean()) > MARGIN
    assert_near(by_intervention[Intervention.RESTORE], references[CLEAN], "restored")
    assert_near(by_intervention[Intervention.CORRUPT], references[CORRUPTED], "corrupted")
