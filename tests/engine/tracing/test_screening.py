"""A screen against exact runs: where effects are small it is right to first order."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.model.components import list_components
from engine.model.hooks import count_rows
from engine.model.model import Diffusion
from engine.model.opening import count_steps, open_model
from engine.model.scorer import Scorer, open_scorer
from engine.tracing.screening import screen_unit
from engine.tracing.trace_unit import trace_unit
from schemas.caption import Caption
from schemas.component import Part
from schemas.errors import PlanError
from schemas.intervention import Intervention, PatchKind, TokenRole
from schemas.numerics import Numerics
from schemas.screen import Screen
from schemas.trial import Trial
from schemas.unit import Unit
from schemas.window import expand_windows

CAPTION = Caption(caption="a red apple on a wooden table", subject="red apple", attribute="object")
SMALL = 3e-5
"""A noise so small that effects are linear in it, to a few percent."""
BOTH = (Intervention.RESTORE, Intervention.CORRUPT)


@pytest.fixture(scope="module")
def model(tiny_sd: Path) -> Diffusion:
    return open_model(str(tiny_sd), device="cpu")


@pytest.fixture(scope="module")
def scorer(tiny_scorer: Path) -> Scorer:
    return open_scorer(str(tiny_scorer))


def make_unit(model: Diffusion, numerics: Numerics, part: Part = Part.DENOISER) -> Unit:
    """Return a unit of every other component of a part, heads and blocks too, at single steps."""
    steps = count_steps(model.name, scheduler=numerics.scheduler, steps=numerics.steps)
    windows = expand_windows(["each"], steps) if part is Part.DENOISER else ((0, steps),)
    return Unit(
        caption=CAPTION,
        seed=3,
        draw=0,
        part=part,
        components=tuple(c.name for c in list_components(model) if c.part is part)[::2],
        windows=windows,
        tokens=(TokenRole.LAST_SUBJECT, TokenRole.EOS, TokenRole.ALL),
        interventions=BOTH,
    )


def effects(trials: list[Trial]) -> dict[tuple[object, ...], float]:
    """Return the patched score less that of its base, by all that tells trials apart."""
    return {
        (t.component, t.intervention, t.patch_kind, t.token, t.step_start, t.measure): t.patched
        - (t.corrupted if t.intervention.changes_corrupted else t.clean)
        for t in trials
    }


def difference(model: Diffusion, scorer: Scorer, unit: Unit, numerics: Numerics) -> float:
    """Return the length of estimates less exact effects, as a share of that of the latter."""
    exact = effects(trace_unit(model, scorer, unit, numerics=numerics, rows=64))
    screened = effects(screen_unit(model, scorer, unit, numerics=numerics))
    assert screened.keys() == exact.keys()
    x, y = np.array(list(exact.values())), np.array([screened[key] for key in exact])
    assert np.abs(x).max() > 1e-5
    return float(np.linalg.norm(x - y) / np.linalg.norm(x))


@pytest.mark.parametrize("part", Part)
def test_small_effects_are_right(model: Diffusion, scorer: Scorer, part: Part) -> None:
    """Components, heads and steps, restored and corrupted, on a multistep scheduler."""
    numerics = Numerics(steps=3, guidance=4.0, scheduler="dpm++", noise_absolute=SMALL)
    assert difference(model, scorer, make_unit(model, numerics, part), numerics) < 0.08


@pytest.mark.slow
@pytest.mark.parametrize("cfg_patch", ["cond", "both"])
@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "euler-a", "heun", "unipc"])
def test_small_effects_are_right_on_every_scheduler(
    model: Diffusion, scorer: Scorer, scheduler: str, cfg_patch: str
) -> None:
    """The state that a scheduler keeps of a row carries its slopes from step to step."""
    numerics = Numerics.model_validate(
        {
            "steps": 4,
            "guidance": 4.0,
            "scheduler": scheduler,
            "noise_absolute": SMALL,
            "cfg_patch": cfg_patch,
        }
    )
    assert difference(model, scorer, make_unit(model, numerics), numerics) < 0.08


def test_a_window_is_the_sum_of_its_steps(model: Diffusion, scorer: Scorer) -> None:
    """Ablations and contributions too."""
    numerics = Numerics(steps=3, guidance=4.0)
    each = replace(
        make_unit(model, numerics),
        components=("unet.mid_block.resnets.0", "unet.down_blocks.0.resnets.0"),
        interventions=(Intervention.RESTORE, Intervention.ZERO),
        patches=tuple(PatchKind),
    )
    window = replace(each, windows=((1, 3),))
    by_step = effects(screen_unit(model, scorer, each, numerics=numerics))
    whole = effects(screen_unit(model, scorer, window, numerics=numerics))
    for (component, intervention, kind, token, _, measure), effect in whole.items():
        parts = [by_step[component, intervention, kind, token, n, measure] for n in (1, 2)]
        assert effect == pytest.approx(sum(parts), rel=1e-4, abs=1e-7)
        assert effect != 0


def test_rows_say_what_they_are(model: Diffusion, scorer: Scorer) -> None:
    """References are the exact ones; only the patched score is an estimate."""
    numerics = Numerics(steps=2, guidance=4.0)
    unit = replace(make_unit(model, numerics), interventions=(Intervention.RESTORE,))
    exact = trace_unit(model, scorer, unit, numerics=numerics, rows=64)
    screened = screen_unit(model, scorer, unit, numerics=numerics, estimate=Screen.RELP)
    assert {trial.estimate for trial in exact} == {"exact"}
    assert {trial.estimate for trial in screened} == {"relp"}
    assert screened[0].clean == pytest.approx(exact[0].clean, abs=1e-6)
    assert screened[0].corrupted == pytest.approx(exact[0].corrupted, abs=1e-6)


def test_several_activations_together_have_no_estimate(model: Diffusion, scorer: Scorer) -> None:
    """A sum of what they do one by one counts twice what one passes on to another."""
    numerics = Numerics(steps=2, guidance=4.0)
    unit = replace(
        make_unit(model, numerics),
        components=(
            "unet.down_blocks.0.resnets.0",
            "unet.down_blocks.0.resnets.0..unet.down_blocks.1.resnets.0",
        ),
    )
    screened = screen_unit(model, scorer, unit, numerics=numerics)
    assert {trial.component for trial in screened} == {"unet.down_blocks.0.resnets.0"}


def test_a_measure_without_slope_is_refused(model: Diffusion, scorer: Scorer) -> None:
    """The clean run is where the distance to it is least."""
    numerics = Numerics(steps=2, guidance=4.0)
    unit = make_unit(model, numerics)
    with pytest.raises(PlanError, match="clean-latent has no slope at the clean run"):
        screen_unit(model, scorer, unit, numerics=numerics, measures=("target", "clean-latent"))


def test_the_work_does_not_grow_with_components_or_windows(
    model: Diffusion, scorer: Scorer
) -> None:
    """Guided, of T steps: the two references, the clean run's own half, and the corrupted run."""
    numerics = Numerics(steps=3, guidance=4.0)
    unit = replace(make_unit(model, numerics), interventions=(Intervention.RESTORE,))
    assert _rows(model, lambda: screen_unit(model, scorer, unit, numerics=numerics)) == 3 * 7
    text = replace(
        make_unit(model, numerics, Part.TEXT_ENCODER), interventions=(Intervention.RESTORE,)
    )
    assert _rows(model, lambda: screen_unit(model, scorer, text, numerics=numerics)) == 3 * 6


def _rows(model: Diffusion, work: Callable[[], object]) -> int:
    rows = list[int]()
    with count_rows(model.denoiser, rows.append):
        work()
    return sum(rows)


def test_a_text_that_was_embedded_while_tracing_is_differentiated(
    model: Diffusion, scorer: Scorer
) -> None:
    """A tensor of inference mode could take part in no gradient."""
    numerics = Numerics(steps=2, guidance=4.0)
    unit = make_unit(model, numerics)
    fresh = Caption(caption="a ship on a table", subject="ship", attribute="object")
    with torch.inference_mode():
        scorer.embed_texts([fresh.caption, fresh.target_text])
    screen_unit(model, scorer, replace(unit, caption=fresh), numerics=numerics)
