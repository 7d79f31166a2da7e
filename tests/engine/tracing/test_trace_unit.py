"""The lockstep tracer against one written the long way, and what must not change a score."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.model.hooks import HookPoint, Side, patched, recording
from engine.model.model import Diffusion
from engine.model.opening import new_scheduler, open_model
from engine.model.registry import EMOJI_SD
from engine.model.schedulers import readable
from engine.model.scorer import Scorer, open_scorer
from engine.tracing.interventions import Patch, list_patches, reference_runs
from engine.tracing.kept import ImageSelector
from engine.tracing.lockstep import run_patches, run_references
from engine.tracing.text_runs import TextRow, encode_rows
from engine.tracing.trace_unit import trace_images, trace_unit
from schemas.caption import Caption
from schemas.component import Part
from schemas.errors import PlanError, UnknownComponent
from schemas.intervention import CONTROLS, Intervention, TokenRole
from schemas.numerics import Numerics
from schemas.trial import Trial
from schemas.unit import Unit
from schemas.window import expand_windows
from tests.covering import covering, slow
from tests.made_up.states import state_of
from tests.models.naive import Key, Oracle, component_names, kind_of
from tests.rounding import ROUNDING, assert_near

CAPTIONS = (
    Caption(
        caption="a red apple on a wooden table",
        subject="red apple",
        attribute="object",
        counterfactual="old sea",
    ),
    Caption(
        caption="a photo of a hippopotamus by the sea",
        subject="hippopotamus",
        attribute="object",
        counterfactual="ship",
    ),
    Caption(
        caption="a painting of a castle",
        subject="painting",
        attribute="style",
        target="a painting",
        counterfactual="photo",
    ),
)
PAPERS = tuple(
    intervention
    for intervention in Intervention
    if intervention not in (Intervention.EMPTY_TEXT, Intervention.SKIP)
)
"""Interventions that this oracle knows; `engine.testing` has one that knows the others."""
REFERENCES = (
    "a red apple in a painting of a hippopotamus",
    "two small birds at night",
    "an old castle in the green forest",
)
SCORES = ("caption", "target", "clean-image", "clean-latent")
MARGIN = 1e-3
"""How far two images are at least, in the mean over pixels, that ought to differ."""

ATTN2 = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
ONE_OF_EACH_KIND = (
    ATTN2,
    f"{ATTN2}.heads.3",
    "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn1",
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.heads.0",
    "unet.mid_block.attentions.0.transformer_blocks.0.ff",
    "unet.down_blocks.1.resnets.0",
    "unet.down_blocks.0",
    "unet.mid_block",
    "unet.up_blocks.0",
)
TEXT_OF_EACH_KIND = (
    "text_encoder.layers.0.self_attn",
    "text_encoder.layers.1.self_attn.heads.1",
    "text_encoder.layers.0.mlp",
    "text_encoder.layers.1",
)
RANGES = (
    f"{ATTN2}..unet.up_blocks.1.attentions.1.transformer_blocks.0.attn2",
    "unet.down_blocks.1.resnets.0..unet.mid_block.resnets.1",
    f"{ATTN2}.heads.2..unet.mid_block.attentions.0.transformer_blocks.0.attn1.heads.1",
    "unet.down_blocks.0..unet.mid_block",
)


@pytest.fixture(scope="module")
def model(tiny_sd: Path) -> Diffusion:
    return open_model(str(tiny_sd), device="cpu")


@pytest.fixture(scope="module")
def scorer(tiny_scorer: Path) -> Scorer:
    return open_scorer(str(tiny_scorer))


def make_unit(components: Sequence[str] = ONE_OF_EACH_KIND[:2], **options: Any) -> Unit:
    """Return a unit of 3 steps, of the part that its first component is of."""
    part = Part.DENOISER if components[0].startswith("unet") else Part.TEXT_ENCODER
    defaults = {"caption": CAPTIONS[0], "seed": 3, "draw": 0, "windows": ((0, 3),)}
    return Unit(part=part, components=tuple(components), **(defaults | options))


def make_numerics(**options: Any) -> Numerics:
    return Numerics.model_validate({"steps": 3, **options})


def key_of(change: Patch) -> Key:
    return Key(
        change.component,
        str(change.intervention),
        change.window,
        change.token,
        change.positions,
    )


def by_key(trials: Sequence[Trial]) -> dict[tuple[object, ...], tuple[float, float, float]]:
    """Return the clean, corrupted and changed score of every trial, by what names it."""
    return {
        (t.component, str(t.intervention), (t.step_start, t.step_stop), t.token, t.position,
         t.measure): (t.clean, t.corrupted, t.patched)
        for t in trials
    }  # fmt: skip


@dataclass(slots=True, kw_only=True)
class SeenImages(ImageSelector):
    """Keeps every image that the scores are of, so that one trace shows both."""

    references: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    changed: list[tuple[Key, torch.Tensor]] = field(default_factory=list[tuple[Key, torch.Tensor]])

    def see_references(
        self, images_RCHW: torch.Tensor, measured: Sequence[Mapping[str, float]]
    ) -> None:
        self.references.append(images_RCHW)

    def see_patches(
        self,
        patches: Sequence[Patch],
        images_RCHW: torch.Tensor,
        measured: Sequence[Mapping[str, float]],
    ) -> None:
        self.changed += zip(map(key_of, patches), images_RCHW, strict=True)


def expected_scores(
    scorer: Scorer, caption: Caption, images: torch.Tensor, latents: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the scores of images, the first of which is the clean one."""
    by_text = scorer.score(images, [caption.caption, caption.target_text])
    embeddings = scorer.embed_images(images)
    difference = (latents - latents[0]).double()
    return {
        "caption": by_text[:, 0],
        "target": by_text[:, 1],
        "clean-image": (embeddings @ embeddings[0]).double(),
        "clean-latent": -difference.pow(2).flatten(1).mean(1).sqrt(),
    }


def assert_equals_the_oracle(
    model: Diffusion, scorer: Scorer, unit: Unit, numerics: Numerics, *, rows: int = 8
) -> dict[Key, torch.Tensor]:
    """Compare every image and score with the oracle's; return the oracle's images."""
    oracle = Oracle(model, unit, numerics)
    keys = list(oracle.keys())
    latents = torch.cat([oracle.clean(), oracle.corrupted(), *map(oracle.changed, keys)])
    images = oracle.pixels(latents)

    seen = SeenImages(measure=SCORES[0], intervention=unit.interventions[0])
    trials = trace_unit(
        model, scorer, unit, numerics=numerics, rows=rows, measures=SCORES, selector=seen
    )
    got = dict(seen.changed)
    assert set(got) == set(keys)
    assert len(seen.changed) == len(keys)
    assert_near(seen.references[0], images[:2], "references")
    for key, image in zip(keys, images[2:], strict=True):
        assert_near(got[key], image, key)
    assert distance(images[0], images[1]) > MARGIN

    scores = by_key(trials)
    assert len(trials) == len(scores) == len(keys) * len(SCORES)
    for measure, values in expected_scores(scorer, unit.caption, images, latents).items():
        for key, value in zip(keys, values[2:].tolist(), strict=True):
            position = key.positions[0] if key.positions else None
            name = (key.component, key.intervention, key.window, key.token, position, measure)
            expected = (values[0].item(), values[1].item(), value)
            assert scores[name] == pytest.approx(expected, abs=ROUNDING, rel=ROUNDING), name
    return dict(zip(keys, images[2:], strict=True))


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().mean())


@pytest.mark.parametrize(
    "options",
    [
        slow({}),
        slow({"cfg_patch": "both"}),
        slow({"guidance": 1.0}),
        slow({"guidance": 1.0, "cfg_patch": "both"}),
        {"guidance": 3.0, "negative_prompt": "an old ship at night", "cfg_patch": "both"},
    ],
    ids=["cond", "both", "unguided", "unguided both", "negative both"],
)
def test_every_kind_equals_the_oracle(
    model: Diffusion, scorer: Scorer, options: dict[str, Any]
) -> None:
    unit = make_unit(ONE_OF_EACH_KIND, windows=((0, 3), (1, 2)))
    assert {kind_of(name) for name in unit.components} == {
        kind_of(name) for name in component_names(model) if name.startswith("unet")
    }
    images = assert_equals_the_oracle(model, scorer, unit, make_numerics(**options))
    assert all_differ(images)


def all_differ(images: dict[Key, torch.Tensor]) -> bool:
    """Return whether the images of any two keys differ: the comparison can tell them apart."""
    flat = torch.stack(list(images.values())).flatten(1)
    apart = torch.cdist(flat, flat, p=float("inf")) + torch.eye(len(flat))
    return float(apart.min()) > ROUNDING * 2


@pytest.mark.parametrize(
    "options", [{}, slow({"cfg_patch": "both"}), slow({"guidance": 1.0})], ids=str
)
def test_every_intervention_equals_the_oracle(
    model: Diffusion, scorer: Scorer, options: dict[str, Any]
) -> None:
    unit = make_unit(
        (ATTN2, f"{ATTN2}.heads.1", "unet.down_blocks.0"),
        caption=CAPTIONS[1],
        windows=((1, 2),),
        interventions=PAPERS,
        references=REFERENCES,
    )
    numerics = make_numerics(steps=2, **options)
    images = assert_equals_the_oracle(model, scorer, unit, numerics, rows=9)
    assert {key.intervention for key in images} == {str(i) for i in PAPERS}
    assert all_differ(images)


def test_every_window_equals_the_oracle(model: Diffusion, scorer: Scorer) -> None:
    windows = expand_windows(("all", "each", "sliding:2", "from", "until"), 3)
    interventions = (Intervention.RESTORE, Intervention.CORRUPT)
    unit = make_unit((ATTN2,), windows=windows, interventions=interventions)
    images = assert_equals_the_oracle(model, scorer, unit, make_numerics(), rows=4)
    assert len(images) == 2 * len(windows) == 12  # every interval of three steps
    assert all_differ(images)


def test_consecutive_components_equal_the_oracle(model: Diffusion, scorer: Scorer) -> None:
    interventions = (Intervention.RESTORE, Intervention.ZERO, Intervention.SWAP)
    unit = make_unit(RANGES, windows=((0, 2),), interventions=interventions)
    assert_equals_the_oracle(model, scorer, unit, make_numerics(steps=2))
    text = make_unit(
        ("text_encoder.layers.0..text_encoder.layers.1",
         "text_encoder.layers.0.self_attn.heads.1..text_encoder.layers.1.self_attn.heads.0"),
        tokens=(TokenRole.SUBJECT, TokenRole.EOS),
        interventions=interventions,
    )  # fmt: skip
    assert_equals_the_oracle(model, scorer, text, make_numerics(steps=1))


@pytest.mark.parametrize(
    ("options", "part"),
    covering(
        [
            {"noise_at": "output"},
            {"noise_absolute": 0.5},
            {"noise_absolute": 0.5, "noise_at": "output"},
            {"noise_sigmas": 1.0},
            {"corruption": "counterfactual"},
        ],
        list(Part),
    ),
)
def test_every_corruption_equals_the_oracle(
    model: Diffusion, scorer: Scorer, part: Part, options: dict[str, Any]
) -> None:
    components = (ATTN2,) if part is Part.DENOISER else ("text_encoder.layers.0",)
    unit = make_unit(
        components,
        caption=CAPTIONS[1],
        draw=2,
        windows=((0, 2),),
        interventions=(Intervention.RESTORE, Intervention.CORRUPT, Intervention.SWAP),
    )
    assert_equals_the_oracle(model, scorer, unit, make_numerics(steps=2, **options))


@pytest.mark.parametrize(("part", "noise_at"), covering(list(Part), ["input", "output"]))
def test_controls_equal_the_oracle(
    model: Diffusion, scorer: Scorer, part: Part, noise_at: str
) -> None:
    unit = make_unit(
        (ATTN2,) if part is Part.DENOISER else ("text_encoder.layers.0",),
        caption=CAPTIONS[1],
        windows=((0, 2),),
        interventions=(Intervention.RESTORE, *CONTROLS),
        references=REFERENCES,
    )
    numerics = make_numerics(steps=2, noise_at=noise_at)
    assert_equals_the_oracle(model, scorer, unit, numerics, rows=16)


def test_a_caption_without_counterfactual_has_no_matched_run(
    model: Diffusion, scorer: Scorer
) -> None:
    caption = Caption(caption="a red apple", subject="apple", attribute="object")
    interventions = (Intervention.RESTORE, Intervention.MATCHED)
    unit = make_unit((ATTN2,), caption=caption, interventions=interventions, windows=((0, 2),))
    trials = trace_unit(model, scorer, unit, numerics=make_numerics(), rows=8)
    assert {trial.intervention for trial in trials} == {Intervention.RESTORE}


def test_the_other_caption_is_drawn_among_all_that_are_unrelated() -> None:
    sources = set()
    for seed in range(20):
        unit = make_unit(
            (ATTN2,),
            seed=seed,
            interventions=(Intervention.OTHER_CAPTION,),
            references=("two small birds", "a green forest", f"a {CAPTIONS[0].subject}"),
        )
        (_, _, source) = reference_runs(unit, make_numerics())
        assert source == reference_runs(unit, make_numerics())[2]
        sources.add(source.text)
    assert sources == {"two small birds", "a green forest"}


# The latents of every scheduler are compared below, in the default suite.
@pytest.mark.parametrize(
    "scheduler",
    [name if name == "heun" else slow(name) for name in readable({})],
)
def test_every_scheduler_equals_the_oracle(
    model: Diffusion, scorer: Scorer, scheduler: str
) -> None:
    numerics = make_numerics(scheduler=scheduler, steps=4, guidance=2.0)
    evaluations = len(new_scheduler(model, Numerics(scheduler=scheduler, steps=4)).timesteps)
    unit = make_unit(
        (ATTN2,),
        windows=((0, evaluations), (1, 3), (3, 4)),
        interventions=(Intervention.RESTORE, Intervention.OTHER_SEED),
    )
    assert_equals_the_oracle(model, scorer, unit, numerics, rows=7)


@pytest.mark.parametrize(
    "caption",
    [slow(CAPTIONS[0]), CAPTIONS[1], slow(CAPTIONS[2])],
    ids=lambda caption: caption.subject,
)
def test_every_token_role_equals_the_oracle(
    model: Diffusion, scorer: Scorer, caption: Caption
) -> None:
    roles = [role for role in TokenRole if role not in (TokenRole.EACH, TokenRole.WORDS)]
    unit = make_unit(TEXT_OF_EACH_KIND, caption=caption, tokens=tuple(roles), windows=((0, 2),))
    assert {kind_of(name) for name in unit.components} == {
        kind_of(name) for name in component_names(model) if name.startswith("text")
    }
    numerics = make_numerics(steps=2, guidance=1.0)
    assert_equals_the_oracle(model, scorer, unit, numerics, rows=32)


@pytest.mark.parametrize(
    "options",
    [{"guidance": 1.0}, slow({"guidance": 3.0, "negative_prompt": "a ship", "steps": 1})],
    ids=str,
)
def test_every_intervention_on_text_equals_the_oracle(
    model: Diffusion, scorer: Scorer, options: dict[str, Any]
) -> None:
    unit = make_unit(
        TEXT_OF_EACH_KIND,
        caption=CAPTIONS[1],
        tokens=(TokenRole.SUBJECT, TokenRole.ALL),
        interventions=PAPERS,
        references=REFERENCES,
    )
    numerics = make_numerics(**{"steps": 2, **options})
    images = assert_equals_the_oracle(model, scorer, unit, numerics)
    left = {"swap", "other-seed"}
    assert {key.intervention for key in images} == {str(i) for i in PAPERS} - left


@pytest.mark.parametrize("role", [TokenRole.EACH, TokenRole.WORDS])
def test_each_position_equals_the_oracle(model: Diffusion, scorer: Scorer, role: TokenRole) -> None:
    unit = make_unit(("text_encoder.layers.1.mlp",), tokens=(role,))
    numerics = make_numerics(steps=1, guidance=1.0)
    images = assert_equals_the_oracle(model, scorer, unit, numerics)
    positions: list[Any] = [key.positions for key in images]
    # Start of text, seven words of one token or more, end of text.
    length = model.tokenizer.model_max_length if role is TokenRole.EACH else positions[-1][0]
    first = 0 if role is TokenRole.EACH else 1
    assert positions == [(p,) for p in range(first, first + length)]


def plans(examples: int) -> settings:
    """Return the settings of tests of so many plans."""
    checks = [HealthCheck.too_slow]
    return settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=checks
    )


@plans(3)
@given(data=st.data())
def test_any_plan_equals_the_oracle(model: Diffusion, scorer: Scorer, data: st.DataObject) -> None:
    compare_any_plan(model, scorer, data)


@pytest.mark.slow
@plans(60)
@given(data=st.data())
def test_many_plans_equal_the_oracle(model: Diffusion, scorer: Scorer, data: st.DataObject) -> None:
    compare_any_plan(model, scorer, data)


def compare_any_plan(model: Diffusion, scorer: Scorer, data: st.DataObject) -> None:
    """Compare the traces of a plan that hypothesis draws."""
    part = data.draw(st.sampled_from(list(Part)))
    names = [n for n in component_names(model) if n.startswith("unet") is (part is Part.DENOISER)]
    scheduler = data.draw(st.sampled_from([None, "ddpm", "euler-a", "heun", "dpm++", "lcm"]))
    numerics = Numerics(
        scheduler=scheduler,
        steps=data.draw(st.integers(2, 3)),
        guidance=data.draw(st.sampled_from([1.0, 2.5, 7.5])),
        cfg_patch=data.draw(st.sampled_from(["cond", "both"])),
        corruption=data.draw(st.sampled_from(["noise", "counterfactual"])),
        noise_at=data.draw(st.sampled_from(["input", "output"])),
        noise_sigmas=data.draw(st.sampled_from([1.5, 3.0])),
        negative_prompt=data.draw(st.sampled_from(["", "two small birds"])),
    )
    last = len(new_scheduler(model, numerics).timesteps)
    windows = st.integers(0, last - 1).flatmap(
        lambda start: st.tuples(st.just(start), st.integers(start + 1, last))
    )
    components = st.one_of(st.sampled_from(names), ranges(names))
    needs_noise = {Intervention.OTHER_DRAW, Intervention.MATCHED}
    chosen = data.draw(st.lists(some_intervention, min_size=1, max_size=2, unique=True))
    if needs_noise & set(chosen):
        numerics = numerics.model_copy(update={"corruption": "noise"})
    unit = Unit(
        caption=data.draw(st.sampled_from(CAPTIONS)),
        seed=data.draw(st.integers(0, 2**63 - 1)),
        draw=data.draw(st.integers(0, 3)),
        part=part,
        components=tuple(data.draw(st.lists(components, min_size=1, max_size=2, unique=True))),
        windows=tuple(data.draw(st.lists(windows, min_size=1, max_size=2, unique=True))),
        tokens=tuple(data.draw(st.lists(some_role, min_size=1, max_size=2, unique=True))),
        interventions=tuple(chosen),
        references=REFERENCES,
    )
    if part is Part.TEXT_ENCODER:
        unit = replace(unit, windows=((0, last),))
    rows = data.draw(st.sampled_from([8, 9, 16]))
    assert_equals_the_oracle(model, scorer, unit, numerics, rows=rows)


some_role = st.sampled_from([r for r in TokenRole if r not in (TokenRole.EACH, TokenRole.WORDS)])
some_intervention = st.sampled_from(PAPERS)


@st.composite
def ranges(draw: st.DrawFn, names: Sequence[str]) -> str:
    """Return FIRST..LAST of one kind."""
    first = draw(st.sampled_from(list(names)))
    later = [n for n in names[names.index(first) :] if kind_of(n) == kind_of(first)]
    return f"{first}..{draw(st.sampled_from(later))}"


@pytest.mark.skipif(not (EMOJI_SD / "model_index.json").exists(), reason="no weights yet")
@pytest.mark.parametrize("part", [Part.DENOISER, slow(Part.TEXT_ENCODER)])
def test_the_shipped_model_equals_the_oracle(part: Part) -> None:
    model = open_model("emoji-sd", device="cpu")
    caption = Caption(caption="a photo of a red cat", subject="cat", attribute="object")
    numerics = Numerics(steps=2, guidance=3.0)
    names = [n for n in component_names(model) if n.startswith("unet") is (part is Part.DENOISER)]
    unit = make_unit(random.Random(0).sample(names, 6), caption=caption, windows=((0, 2),))
    assert_equals_the_oracle(model, open_scorer("builtin:emoji-sd"), unit, numerics)


@pytest.mark.parametrize("scheduler", readable({}))
def test_latents_equal_the_oracles_and_the_past_stays_as_it_was(
    model: Diffusion, scheduler: str
) -> None:
    numerics = make_numerics(scheduler=scheduler, steps=4, guidance=2.0)
    unit = make_unit(("unet.down_blocks.0",), windows=((0, 2), (2, 3), (3, 4)))
    runs, patches = reference_runs(unit, numerics), list_patches(model, unit, numerics)
    with torch.inference_mode():
        cond = encode_rows(model, unit, [TextRow(run=run) for run in runs], numerics)
        past, _ = run_references(model, runs, cond, numerics=numerics)
        before = [rows.x_RChw.clone() for rows in past.rows]
        together = run_patches(model, past, patches, numerics)
        again = run_patches(model, past, patches, numerics)
    assert torch.equal(together, again)
    assert all(torch.equal(x, rows.x_RChw) for x, rows in zip(before, past.rows, strict=True))
    oracle = Oracle(model, unit, numerics)
    expected = torch.cat([oracle.changed(key_of(patch)) for patch in patches])
    scale = float(expected.abs().max())
    assert float((together - expected).abs().max()) < ROUNDING * max(1.0, scale)


def test_the_same_call_gives_the_same_scores_and_another_draw_others(
    model: Diffusion, scorer: Scorer
) -> None:
    for components in (ONE_OF_EACH_KIND[:3], TEXT_OF_EACH_KIND[:2]):
        unit = make_unit(components)
        first, again, other, seed = (
            trace_unit(model, scorer, u, numerics=make_numerics(), rows=4)
            for u in (unit, unit, replace(unit, draw=1), replace(unit, seed=4))
        )
        assert again == first
        assert other[0].clean == pytest.approx(first[0].clean, abs=1e-6)
        assert abs(other[0].corrupted - first[0].corrupted) > MARGIN
        assert abs(seed[0].clean - first[0].clean) > MARGIN


@pytest.mark.parametrize("part", list(Part))
def test_rows_and_slabs_change_no_score(model: Diffusion, scorer: Scorer, part: Part) -> None:
    names = ONE_OF_EACH_KIND[::3] if part is Part.DENOISER else TEXT_OF_EACH_KIND[:2]
    unit = make_unit(
        names,
        windows=((0, 2), (1, 2)) if part is Part.DENOISER else ((0, 2),),
        tokens=(TokenRole.SUBJECT, TokenRole.WORDS),
        interventions=(Intervention.RESTORE, Intervention.CORRUPT),
    )
    units = [replace(unit, components=(n,), windows=(w,)) for n in names for w in unit.windows]
    numerics = make_numerics(steps=2)
    trials = [
        [t for u in of for t in trace_unit(model, scorer, u, numerics=numerics, rows=rows)]
        for of, rows in (([unit], 40), ([unit], 5), (units, 3))
    ]
    whole, *others = map(by_key, trials)
    for other in others:
        assert set(other) == set(whole)
        for name, scores in whole.items():
            assert other[name] == pytest.approx(scores, abs=ROUNDING), name


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (4, {}),
        (7, {"cfg_patch": "both"}),
        (4, {"guidance": 1.0}),
        slow(7, {}),
        slow(4, {"cfg_patch": "both"}),
        slow(7, {"guidance": 1.0}),
    ],
    ids=str,
)
def test_no_batch_has_more_rows_than_were_asked_for(
    model: Diffusion, rows: int, options: dict[str, Any]
) -> None:
    numerics = make_numerics(steps=2, **options)
    interventions = (Intervention.RESTORE, Intervention.CORRUPT, Intervention.OTHER_SEED)
    unit = make_unit(ONE_OF_EACH_KIND, windows=((0, 2), (1, 2)), interventions=interventions)
    spot = HookPoint(model.denoiser, Side.INPUT)
    with recording([spot]) as passed:
        trace_images(model, unit, numerics=numerics, rows=rows)
    limit = rows if numerics.guidance == 1 else 2 * rows
    assert max(len(x) for x in passed[spot]) <= limit


def test_restoring_everything_is_the_clean_image_and_nothing_the_corrupted(
    model: Diffusion,
) -> None:
    everything = "unet.down_blocks.0..unet.up_blocks.1"
    # The first resnet reads no text: at the first step both runs' are the same.
    nothing = "unet.down_blocks.0.resnets.0"
    (clean, corrupted), images = trace_images(
        model,
        make_unit((everything, nothing), windows=((0, 3), (0, 1))),
        numerics=make_numerics(),
        rows=4,
    )
    by_name = {(c.component, c.window): image for c, image in images.items()}
    assert distance(clean, corrupted) > MARGIN
    assert_near(by_name[everything, (0, 3)], clean, everything)
    assert_near(by_name[nothing, (0, 1)], corrupted, nothing)
    assert distance(by_name[nothing, (0, 3)], corrupted) > MARGIN
    assert distance(by_name[everything, (0, 1)], corrupted) > MARGIN


def test_restoring_all_of_the_text_is_clean_and_what_no_subject_reaches_corrupted(
    model: Diffusion,
) -> None:
    layers = "text_encoder.layers.0..text_encoder.layers.1"
    unit = make_unit((layers,), tokens=(TokenRole.ALL, TokenRole.WORDS))
    (clean, corrupted), images = trace_images(model, unit, numerics=make_numerics(), rows=4)
    by_token = {change.token: image for change, image in images.items()}
    assert_near(by_token["all"], clean, "all")
    # The first word stands before the subject, and attention is causal.
    assert_near(by_token["1"], corrupted, "1")
    assert distance(by_token["2"], corrupted) > MARGIN


def test_a_mean_over_the_caption_itself_changes_nothing(model: Diffusion) -> None:
    for components in ((ATTN2,), TEXT_OF_EACH_KIND[:1]):
        unit = make_unit(
            components,
            interventions=(Intervention.MEAN,),
            references=(CAPTIONS[0].caption,) * 2,
            tokens=(TokenRole.ALL,),
        )
        (clean, corrupted), images = trace_images(model, unit, numerics=make_numerics(), rows=6)
        (image,) = images.values()
        assert_near(image, clean, components)
        assert distance(clean, corrupted) > MARGIN


def test_tracing_leaves_the_model_as_found_also_after_an_exception(
    model: Diffusion, scorer: Scorer
) -> None:
    before = state_of(model)
    unit = make_unit(ONE_OF_EACH_KIND, interventions=PAPERS, references=REFERENCES)
    text = make_unit(TEXT_OF_EACH_KIND)
    for each in (unit, text):
        trace_unit(model, scorer, each, numerics=make_numerics(), rows=9)
        assert state_of(model) == before
    text_encoder: Any = model.text_encoder
    for each, module in ((unit, model.denoiser.conv_out), (text, text_encoder.final_layer_norm)):
        hooks: list[int] = []

        def fail(h: torch.Tensor, hooks: list[int] = hooks) -> torch.Tensor:
            hooks.append(state_of(model)[1])
            if hooks[-1] > before[1] + 2:
                raise ArithmeticError
            return h

        with pytest.raises(ArithmeticError), patched({HookPoint(module): fail}):
            trace_unit(model, scorer, each, numerics=make_numerics(), rows=9)
        assert len(hooks) > 1
        assert state_of(model) == before


def test_an_unknown_component_is_refused_with_the_nearest_names(
    model: Diffusion, scorer: Scorer
) -> None:
    before = state_of(model)
    for name, near in (
        ("unet.mid_block.resnet.0", r"unet\.mid_block\.resnets\.0"),
        ("text_encoder.layers.0.self_attention", r"text_encoder\.layers\.0\.self_attn"),
        ("unet.mid_block..unet.up_block.1", r"unet\.up_blocks\.1"),
    ):
        with pytest.raises(UnknownComponent, match=near):
            trace_unit(model, scorer, make_unit((name,)), numerics=make_numerics(), rows=4)
    assert state_of(model) == before


@pytest.mark.parametrize(
    "name",
    [
        f"{ATTN2}..unet.mid_block.resnets.0",
        "unet.mid_block..unet.down_blocks.0",
        "unet.mid_block..text_encoder.layers.0",
    ],
    ids=["two kinds", "backward", "two networks"],
)
def test_a_range_with_unlike_ends_is_refused(model: Diffusion, scorer: Scorer, name: str) -> None:
    with pytest.raises(UnknownComponent, match="is not a range"):
        trace_unit(model, scorer, make_unit((name,)), numerics=make_numerics(), rows=4)


@pytest.mark.parametrize("components", [(ATTN2,), TEXT_OF_EACH_KIND[:1]], ids=["unet", "text"])
def test_donors_that_are_missing_are_refused(
    model: Diffusion, scorer: Scorer, components: tuple[str, ...]
) -> None:
    for intervention, references, message in (
        (Intervention.OTHER_CAPTION, (), "unrelated"),
        (Intervention.OTHER_CAPTION, ("a red apple at night",), "unrelated"),
        (Intervention.MEAN, (), "needs references"),
    ):
        unit = make_unit(components, interventions=(intervention,), references=references)
        with pytest.raises(PlanError, match=message):
            trace_unit(model, scorer, unit, numerics=make_numerics(), rows=4)
    for control in (Intervention.OTHER_DRAW, Intervention.MATCHED):
        unit = make_unit(components, interventions=(control,))
        with pytest.raises(PlanError, match=f"{control} needs corruption by noise"):
            trace_unit(
                model, scorer, unit, numerics=make_numerics(corruption="counterfactual"), rows=4
            )
    plain = Caption(caption="a red apple", subject="apple", attribute="object")
    numerics = make_numerics(corruption="counterfactual")
    with pytest.raises(PlanError, match="counterfactual"):
        trace_unit(model, scorer, make_unit(components, caption=plain), numerics=numerics, rows=4)


def test_unknown_and_repeated_scores_are_refused(model: Diffusion, scorer: Scorer) -> None:
    for measures, message in ((("captoin",), "unknown measure"), (("caption",) * 2, "twice")):
        with pytest.raises(PlanError, match=message):
            trace_unit(
                model, scorer, make_unit(), numerics=make_numerics(), rows=4, measures=measures
            )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_cpus_scores(tiny_sd: Path, tiny_scorer: Path) -> None:
    by_device = []
    for device in ("cpu", "cuda"):
        model = open_model(str(tiny_sd), device=device)
        names = [n for n in component_names(model) if n.startswith("unet")]
        trials = trace_unit(
            model,
            open_scorer(str(tiny_scorer), device=device),
            make_unit(names[:3], windows=((0, 3), (1, 2))),
            numerics=make_numerics(steps=3),
            rows=4,
        )
        by_device.append([trial.patched for trial in trials])
    assert by_device[0] == pytest.approx(by_device[1], abs=1e-3)
