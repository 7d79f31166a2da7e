"""What rank says of states and contributions, of cut points, and of all text entries together."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs.query.bound import bounds, comparisons
from jobs.query.rank import SHOWN, Choice, ranked
from jobs.query.select import opened_views
from jobs.query.words import notes, verdicts
from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun, create_run
from schemas.caption import Caption
from schemas.component import TEXT_ENTRIES, Component, Kind, Part
from schemas.intervention import Intervention, PatchKind
from schemas.plan import TracePlan
from tests.made_up.runs import MANIFEST, commit_all, score_row

CAPTIONS = 12
INTERVENTIONS = (Intervention.RESTORE, Intervention.CORRUPT)
RESNET, LAST, ATTENTION = "unet.down.resnets.0", "unet.up.resnets.1", "unet.up.attn2"
MEANS = {
    (RESNET, "state"): 0.3,
    (RESNET, "contribution"): 0.05,
    (LAST, "state"): 0.38,
    (LAST, "contribution"): 0.1,
    (ATTENTION, "state"): 0.2,
    (TEXT_ENTRIES, "state"): 0.36,
}
TOTAL = 0.4


def component(name: str, kind: Kind, order: int) -> Component:
    return Component(
        name=name,
        part=Part.DENOISER,
        kind=kind,
        order=order,
        layer=0,
        num_parameters=1,
        has_contribution=kind is Kind.RESNET,
        is_cut_point=name == LAST,
    )


COMPONENTS = (
    component(RESNET, Kind.RESNET, 0),
    component(LAST, Kind.RESNET, 1),
    component(ATTENTION, Kind.CROSS_ATTENTION, 2),
    component(TEXT_ENTRIES, Kind.CROSS_ATTENTION, 2),
)


def traced(path: Path, patches: tuple[PatchKind, ...], captions: int = CAPTIONS) -> TraceRun:
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=tuple(
            Caption(caption=f"cat {n}", subject="cat", attribute="object") for n in range(captions)
        ),
        parts=(Part.DENOISER,),
        measures=("target",),
        interventions=INTERVENTIONS,
        patches=patches,
    )
    run = create_run(path, plan, MANIFEST, COMPONENTS, steps=50)
    generator = np.random.default_rng(0)

    def scores(row: IdentifiedUnit) -> Iterator[dict]:
        for (name, kind), mean in MEANS.items():
            for intervention in INTERVENTIONS if kind in patches else ():
                effect = mean + 0.02 * generator.normal()
                is_restored = intervention is Intervention.RESTORE
                yield score_row(
                    row, name, intervention=intervention.value, token="all", position=None,
                    token_text=None, patch_kind=kind, measure="target", clean=0.2 + TOTAL,
                    corrupted=0.2, patched=0.2 + (effect if is_restored else TOTAL - effect),
                )  # fmt: skip

    commit_all(run, lambda row: list(scores(row)))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return traced(tmp_path_factory.mktemp("bound") / "run", tuple(PatchKind))


def test_the_bound_is_a_share_of_the_total_effect_and_ranks_nowhere(run: TraceRun) -> None:
    with opened_views(run) as views:
        restored, corrupted = bounds(views, Choice(measure="target"))
        names = views.query("SELECT DISTINCT component FROM ranking")["component"].to_pylist()
        assert bounds(views, Choice(measure="target", attribute="style")) == []
    assert sorted(map(str, names)) == sorted({RESNET, LAST, ATTENTION})
    for bound in (restored, corrupted):
        assert bound.share == pytest.approx(0.9, abs=0.05)
        assert bound.low < bound.share < bound.high
    assert restored.sentence.startswith(
        "object, denoiser: all text entries restored together bring"
    )
    assert "corrupted together take away" in corrupted.sentence


def test_states_and_contributions_are_ranked_apart_and_cut_points_marked(run: TraceRun) -> None:
    with opened_views(run) as views:
        rows = ranked(views, Choice(measure="target"), columns=SHOWN, top=2).to_pylist()
        choice = Choice(measure="target")
        said = "\n".join([*verdicts(views, choice), *notes(views, choice)])
    assert [(row["patch_kind"], row["component"], row["rank"]) for row in rows] == [
        ("contribution", LAST, 1),
        ("contribution", RESNET, 2),
        ("state", LAST, 1),
        ("state", RESNET, 2),
    ]
    assert [row["is_cut_point"] for row in rows] == [False, False, True, False]
    assert "object, denoiser: 3 of 3 states" in said
    assert "object, denoiser, contributions: 2 of 2 states" in said
    assert "a restored resnet holds everything that came to it" in said
    assert "states and contributions are tested and ranked apart" in said
    assert f"the state of {LAST} holds everything upstream of it" in said


def test_contributions_alone_may_all_be_compared(tmp_path: Path) -> None:
    alone = traced(tmp_path / "alone", (PatchKind.CONTRIBUTION,))
    assert comparisons(alone, part=None) == []
    with opened_views(alone) as views:
        assert bounds(views, Choice(measure="target")) == []


def test_one_caption_has_a_bound_without_an_interval(tmp_path: Path) -> None:
    single = traced(tmp_path / "single", (PatchKind.STATE,), captions=1)
    with opened_views(single) as views:
        restored, _ = bounds(views, Choice(measure="target"))
    assert restored.share == pytest.approx(0.9, abs=0.1)
    assert "too few captions" in restored.sentence
