"""Families with a UNet: turbo models, the text rows, and traces of each of their networks."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.components import Site, list_components, list_sites, sites_of
from engine.model.hooks import HookPoint, patched
from engine.model.model import Diffusion
from engine.model.opening import open_model, open_tokenizer
from engine.model.sampling import encode, generate
from engine.model.schedulers import readable
from engine.model.scorer import Scorer, open_scorer
from engine.model.tokens import find_subject
from engine.testing.pipelines import open_pipeline, pipeline_image
from engine.tracing.interventions import CLEAN, CORRUPTED, Patch, reference_runs
from engine.tracing.text_runs import TextRow, encode_rows
from engine.tracing.trace_unit import trace_unit
from schemas.caption import Caption
from schemas.component import PAPER_KINDS, Kind, Part
from schemas.intervention import Intervention
from schemas.numerics import Numerics
from schemas.unit import Unit
from tests.rounding import assert_near

FAMILIES = ("sd", "sd2", "lcm", "sdxl", "if")
CAPTION = Caption(
    caption="a photo of a Hippopotamus by the sea", subject="Hippopotamus", attribute="object"
)


@pytest.fixture(scope="module")
def folders(tiny_sd: Path, tiny_families: dict[str, Path]) -> dict[str, Path]:
    return {"sd": tiny_sd, **tiny_families}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Diffusion]:
    return {name: open_model(str(folder), device="cpu") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def scorer(tiny_scorer: Path) -> Scorer:
    return open_scorer(str(tiny_scorer))


def unit_of(part: Part, names: Sequence[str], *, steps: int) -> Unit:
    return Unit(
        caption=CAPTION,
        seed=3,
        draw=0,
        part=part,
        components=tuple(names),
        windows=((0, steps),),
    )


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_turbo_models_images_are_those_of_the_pipeline(
    folders: dict[str, Path], models: dict[str, Diffusion], family: str, steps: int
) -> None:
    numerics = Numerics(steps=steps, guidance=1.0, scheduler="euler-a")
    pipeline = open_pipeline(folders[family])
    expected = pipeline_image(pipeline, CAPTION.caption, seed=5, numerics=numerics)
    got = generate(models[family], [CAPTION.caption], seeds=[5], numerics=numerics)
    assert_near(got, expected)


@pytest.mark.parametrize("scheduler", readable({}))
def test_every_scheduler_reads_ifs_learned_variance_or_does_without(
    models: dict[str, Diffusion], scheduler: str
) -> None:
    for guidance in (1.0, 4.0):
        numerics = Numerics(steps=4, guidance=guidance, scheduler=scheduler)
        image = generate(models["if"], ["a red apple"], seeds=[0], numerics=numerics)
        assert bool(image.isfinite().all())


def test_sdxl_reads_the_rows_of_the_pipelines_encode_prompt(
    folders: dict[str, Path], models: dict[str, Diffusion]
) -> None:
    pipeline = open_pipeline(folders["sdxl"])
    model = models["sdxl"]
    with torch.no_grad():
        text, negative, pooled, pooled_negative = pipeline.encode_prompt(CAPTION.caption)
        cond = encode(model, [CAPTION.caption])
        uncond = model.family.unconditional(model, "")
        kept = replace(model, settings={"force_zeros_for_empty_prompt": False})
        spoken = model.family.unconditional(kept, "")
        _, empty, _, pooled_empty = pipeline.encode_prompt(CAPTION.caption, negative_prompt="")
    assert cond.pooled_RP is not None
    assert uncond.pooled_RP is not None
    assert spoken.pooled_RP is not None
    assert_near(cond.text_RLD, text)
    assert_near(cond.pooled_RP, pooled)
    assert torch.equal(uncond.text_RLD, negative)
    assert torch.equal(uncond.pooled_RP, pooled_negative)
    assert_near(spoken.text_RLD, empty)
    assert_near(spoken.pooled_RP, pooled_empty)


def test_a_change_of_sdxls_penultimate_layer_reaches_the_text_rows(
    models: dict[str, Diffusion],
) -> None:
    model = models["sdxl"]
    clean = encode(model, [CAPTION.caption])
    encoder: Any = model.text_encoder
    width = encoder.config.hidden_size
    for part, channels, layer in (
        ("text_encoder", slice(0, width), 0),
        ("text_encoder_2", slice(width, None), 1),
    ):
        name = f"{part}.layers.{layer}"
        module = sites_of(model, [name])[name].module
        with patched({HookPoint(module): torch.zeros_like}):
            changed = encode(model, [CAPTION.caption])
        assert float(changed.text_RLD[..., channels].abs().max()) == 0, part
        other = torch.ones(changed.text_RLD.shape[-1], dtype=torch.bool)
        other[channels] = False
        assert torch.equal(changed.text_RLD[..., other], clean.text_RLD[..., other]), part


def test_t5_attends_to_no_padding_and_reads_lower_case(models: dict[str, Diffusion]) -> None:
    model = models["if"]
    (ids,) = model.token_ids([CAPTION.caption])
    assert ids.shape == (1, 77)
    assert torch.equal(ids, model.token_ids([f" {CAPTION.caption.upper()} "])[0])
    eos = find_subject(model.tokenizer, CAPTION).eos
    whole = model.family.encode(model, [ids]).text_RLD[:, : eos + 1]
    short = model.family.encode(model, [ids[:, : eos + 1]]).text_RLD
    assert_near(whole, short)


def test_t5_runs_in_float32_where_the_unet_runs_in_float16(folders: dict[str, Path]) -> None:
    model = open_model(str(folders["if"]), device="cpu", dtype="float16")
    assert model.text_encoder.get_input_embeddings().weight.dtype == torch.float32  # pyright: ignore
    assert encode(model, ["a red apple"]).text_RLD.dtype == torch.float16


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_runs_in_bfloat16(folders: dict[str, Path], family: str) -> None:
    model = open_model(str(folders[family]), device="cpu", dtype="bfloat16")
    numerics = Numerics(steps=2, guidance=3.0, dtype="bfloat16")
    image = generate(model, ["a red apple"], seeds=[0], numerics=numerics)
    assert bool(image.isfinite().all())


@pytest.mark.parametrize("family", FAMILIES)
def test_one_component_of_every_network_traces(
    models: dict[str, Diffusion], scorer: Scorer, family: str
) -> None:
    model, steps = models[family], 2
    components = list_components(model, PAPER_KINDS)
    for network in ("unet", *(encoder.name for encoder in model.encoders)):
        chosen = next(c for c in components if c.name.startswith(f"{network}."))
        unit = unit_of(chosen.part, [chosen.name], steps=steps)
        numerics = Numerics(steps=steps, guidance=4.0)
        for trial in trace_unit(model, scorer, unit, numerics=numerics, rows=3):
            values = (trial.clean, trial.corrupted, trial.patched)
            assert all(isfinite(value) for value in values), trial
            assert all(value != 0 for value in values), trial
            assert abs(trial.clean - trial.corrupted) > 1e-6, trial
            assert abs(trial.patched - trial.corrupted) > 1e-7, trial


@pytest.mark.parametrize("family", FAMILIES)
def test_restoring_all_of_the_text_encoders_is_the_clean_run(
    models: dict[str, Diffusion], family: str
) -> None:
    model, numerics = models[family], Numerics()
    unit = unit_of(Part.TEXT_ENCODER, [], steps=1)
    runs = reference_runs(unit, numerics)
    layers = tuple(site for site in list_sites(model) if site.component.kind is Kind.LAYER)
    every = tuple(range(model.tokenizer.model_max_length))
    patch = replace(_restoring(layers, 1), positions=every)
    rows = [*(TextRow(run=run) for run in runs), TextRow(run=runs[CORRUPTED], patch=patch)]
    with torch.inference_mode():
        cond = encode_rows(model, unit, rows, numerics)
    assert_near(cond.text_RLD[2], cond.text_RLD[CLEAN])
    assert not torch.allclose(cond.text_RLD[CORRUPTED], cond.text_RLD[CLEAN], atol=1e-2)
    if cond.pooled_RP is not None:
        assert_near(cond.pooled_RP[2], cond.pooled_RP[CLEAN])
        assert not torch.allclose(cond.pooled_RP[CORRUPTED], cond.pooled_RP[CLEAN], atol=1e-2)


def _restoring(sites: tuple[Site, ...], steps: int) -> Patch:
    return Patch(
        component="all",
        sites=sites,
        intervention=Intervention.RESTORE,
        window=(0, steps),
        base=CORRUPTED,
        sources=(CLEAN,),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_alone_reads_as_the_models(
    folders: dict[str, Path], models: dict[str, Diffusion], family: str
) -> None:
    alone = find_subject(open_tokenizer(str(folders[family])), CAPTION)
    assert alone == find_subject(models[family].tokenizer, CAPTION)
