"""Sets from a ranking: halves, sizes, random sets, and greedy rounds with known effects."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun, create_run
from jobs.tracing.located_sets import Located, SetsRequest, locate_sets
from jobs.tracing.set_plans import planned_sets, random_sets, sets_plan, sizes_up_to, top_sets
from schemas.caption import Caption
from schemas.component import Component, Kind, Part
from schemas.component_set import ComponentSet, Curve, SetMember
from schemas.errors import PlanError
from schemas.intervention import Intervention, PatchKind
from schemas.plan import TracePlan
from tests.made_up.runs import MANIFEST, commit_all, score_row

STEPS, TOTAL = 50, 0.4
EFFECTS = {"a0": 0.30, "a1": 0.28, "r2": 0.25, "a3": 0.10, "r4": 0.08, "a5": 0.02}
"""The mean effect of restoring each component alone, by the number of its order."""
NEEDED = {"a1", "r4"}
"""A set that holds these has the whole effect, whatever else it holds; others have their best's."""


def component(name: str) -> Component:
    return Component(
        name=f"unet.up.{name}",
        part=Part.DENOISER,
        kind=Kind.RESNET if name[0] == "r" else Kind.CROSS_ATTENTION,
        order=int(name[1]),
        layer=0,
        num_parameters=1,
        has_contribution=name[0] == "r",
    )


COMPONENTS = tuple(map(component, EFFECTS))
BY_NAME = {each.name: each for each in COMPONENTS}


def plan_of(captions: int, attributes: tuple[str, ...], **more: object) -> TracePlan:
    fields = {
        "scorer": "builtin:emoji-sd",
        "captions": tuple(
            Caption(caption=f"cat {n} {name}", subject="cat", attribute=name)
            for name in attributes
            for n in range(captions)
        ),
        "parts": (Part.DENOISER,),
        "measures": ("target",),
        "windows": ("all", "0:10"),
    }
    return TracePlan.model_validate({**fields, **more})


def traced(
    path: Path, *, captions: int = 20, attributes: tuple[str, ...] = ("object",), **more: object
) -> TraceRun:
    """Return a finished run in which a narrow window has half of a component's effect, and a
    contribution a tenth."""
    run = create_run(path, plan_of(captions, attributes, **more), MANIFEST, COMPONENTS, steps=STEPS)

    def scores(row: IdentifiedUnit) -> Iterator[dict]:
        for name, mean in EFFECTS.items():
            for window in row.unit.windows:
                for kind in row.unit.patches:
                    if kind is PatchKind.CONTRIBUTION and name[0] != "r":
                        continue
                    effect = mean * (1 if window == (0, STEPS) else 0.5)
                    effect *= 0.1 if kind is PatchKind.CONTRIBUTION else 1
                    yield score_row(
                        row, component(name).name, token="all", position=None, token_text=None,
                        step_start=window[0], step_stop=window[1], patch_kind=kind.value,
                        measure="target", clean=TOTAL, corrupted=0.0, patched=effect,
                    )  # fmt: skip

    commit_all(run, scores)
    return run


def share_of(members: set[str]) -> float:
    """Return what a set restores of the total effect: made up, so that the greedy set is known."""
    return 1.0 if members >= NEEDED else max(EFFECTS[name] for name in members) / TOTAL


class Tracer:
    """Traces rounds without a model: sets have the effects of `share_of`."""

    def __init__(self) -> None:
        self.plans: dict[str, TracePlan] = {}

    def __call__(self, plan: TracePlan, location: str) -> TraceRun:
        self.plans[location] = plan
        sets = tuple(
            ComponentSet(
                name=each.name, attribute=each.attribute, curve=each.curve,
                members=tuple(
                    SetMember(component=BY_NAME[text.partition("@")[0]], window=(0, STEPS))
                    for text in each.components
                ),
            )
            for each in plan.sets
        )  # fmt: skip
        run = create_run(location, plan, MANIFEST, (), steps=STEPS, sets=sets)

        def scores(row: IdentifiedUnit) -> Iterator[dict]:
            for each in row.unit.sets:
                names = {m.component.name.rpartition(".")[2] for m in each.members}
                yield score_row(
                    row, each.name, token="all", position=None, token_text=None,
                    measure="target", clean=TOTAL, corrupted=0.0,
                    patched=TOTAL * share_of(names),
                )  # fmt: skip

        commit_all(run, scores)
        return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return traced(
        tmp_path_factory.mktemp("runs") / "r",
        attributes=("object", "style"),
        patches=tuple(PatchKind),
    )


def members(located: Located, attribute: str = "object") -> dict[str, set[str]]:
    group = (attribute, Part.DENOISER)
    return {
        each.name: {text.partition("@")[0].rpartition(".")[2] for text in each.components}
        for each in (*top_sets(located, group), *random_sets(located, group))
    }


def test_halves_are_equal_apart_and_follow_from_the_captions(run: TraceRun) -> None:
    located = locate_sets(run, SetsRequest())
    assert set(located.ranked) | set(located.held_out) == set(run.plan.captions)
    assert not set(located.ranked) & set(located.held_out)
    for half in (located.ranked, located.held_out):
        assert {a: sum(c.attribute == a for c in half) for a in ("object", "style")} == {
            "object": 10, "style": 10,
        }  # fmt: skip
    style = locate_sets(run, SetsRequest(attributes=("style",)))
    assert style.ranked == tuple(c for c in located.ranked if c.attribute == "style")


def test_sizes_are_fibonacci_up_to_the_largest() -> None:
    assert sizes_up_to(1) == [1]
    assert sizes_up_to(2) == [1, 2]
    assert sizes_up_to(10) == [1, 2, 3, 5, 8, 10]
    assert sizes_up_to(13) == [1, 2, 3, 5, 8, 13]


def test_first_and_random_sets(run: TraceRun) -> None:
    found = members(locate_sets(run, SetsRequest(top=4)))
    assert found["denoiser-top-1"] == {"a0"}
    assert found["denoiser-top-2"] == {"a0", "a1"}
    assert found["denoiser-top-4"] == {"a0", "a1", "r2", "a3"}
    for name, drawn in found.items():
        if "random" in name:
            size = int(name.split("-")[2])
            top = found[f"denoiser-top-{size}"]
            assert sorted(n[0] for n in drawn) == sorted(n[0] for n in top)
            assert drawn != top
    assert len({frozenset(drawn) for drawn in found.values()}) == len(found)
    assert found == members(locate_sets(run, SetsRequest(top=4)))
    assert found != members(locate_sets(run, SetsRequest(top=4, seed=1)))
    # One component is left out, so that the largest set has five; of its kinds there is one more.
    every = members(locate_sets(run, SetsRequest(top=99)))
    assert max(map(len, every.values())) == 5


def test_contributions_are_ranked_with_what_adds_its_whole_output(run: TraceRun) -> None:
    located = locate_sets(run, SetsRequest(patch=PatchKind.CONTRIBUTION))
    order = [
        state.component.rpartition(".")[2] for state in located.states["object", Part.DENOISER]
    ]
    assert order == ["a0", "a1", "a3", "r2", "a5", "r4"]
    plan = planned_sets(located)
    assert plan.patches == (PatchKind.CONTRIBUTION,)
    leading = ComponentSet(
        name=plan.sets[0].name,
        members=(SetMember(component=BY_NAME["unet.up.a0"], window=(0, STEPS)),),
        curve=plan.sets[0].curve,
    )
    case = (Intervention.RESTORE, PatchKind.CONTRIBUTION, plan.captions[0])
    assert leading.allows(*case), "of a ranking by contribution every set is traced"
    assert not replace(leading, curve=None).allows(*case), "a typed set names it in vain"


def test_the_plan_is_of_the_other_half_and_says_how_it_was_chosen(run: TraceRun) -> None:
    located = locate_sets(run, SetsRequest(attributes=("object",), seed=5))
    plan = planned_sets(located)
    assert plan.captions == located.held_out
    assert plan.components == ()
    assert plan.interventions == (Intervention.RESTORE, Intervention.CORRUPT)
    assert plan.located_sets is not None
    assert plan.located_sets.run == run.id
    assert plan.located_sets.seed == 5
    assert set(plan.located_sets.ranked_captions) == {c.id for c in located.ranked}
    assert {each.attribute for each in plan.sets} == {"object"}
    assert TracePlan.model_validate_json(plan.model_dump_json()) == plan


def test_greedy_rounds_leave_out_what_the_others_make_superfluous(
    run: TraceRun, tmp_path: Path
) -> None:
    """The first five components hold the two that are needed; the rounds find these two."""
    located = locate_sets(run, SetsRequest())
    tracer = Tracer()
    plan = sets_plan(located, str(tmp_path / "s"), tracer)
    greedy = [each for each in plan.sets if each.curve is Curve.GREEDY]
    assert {(each.attribute, each.components) for each in greedy} == {
        (attribute, ("unet.up.a1@0:50", "unet.up.r4@0:50")) for attribute in ("object", "style")
    }
    assert list(tracer.plans) == [f"{tmp_path / 's'}-denoiser-round-{n}" for n in range(5)]
    for number, each in enumerate(tracer.plans.values()):
        assert each.captions == located.ranked
        assert each.interventions == (Intervention.RESTORE,)
        assert number == 0 or {len(of.components) for of in each.sets} == {5 - number}
    assert plan.located_sets is not None
    assert len(plan.located_sets.rounds) == 5
    # The same rounds are found again, and the plan is the same.
    assert sets_plan(located, str(tmp_path / "s"), tracer) == plan


def test_no_greedy_set_where_the_first_do_not_reach_the_share(
    run: TraceRun, tmp_path: Path
) -> None:
    tracer = Tracer()
    plan = sets_plan(locate_sets(run, SetsRequest(top=3)), str(tmp_path / "s"), tracer)
    assert not [each for each in plan.sets if each.curve is Curve.GREEDY]
    assert len(tracer.plans) == 1
    none = Tracer()
    sets_plan(locate_sets(run, SetsRequest(share=0.0)), str(tmp_path / "n"), none)
    assert none.plans == {}


REFUSED: Mapping[str, tuple[dict, SetsRequest, str]] = {
    "few captions": ({"captions": 15}, SetsRequest(), "a half has 7: sets need 8"),
    "attribute": ({}, SetsRequest(attributes=("colour",)), "no attribute 'colour'"),
    "part": ({}, SetsRequest(part=Part.TEXT_ENCODER), "no part 'text-encoder'"),
    "patch": ({}, SetsRequest(patch=PatchKind.CONTRIBUTION), "no patch 'contribution'"),
    "measure": ({}, SetsRequest(measure="margin"), "no measure 'margin'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_requests_that_are_refused(tmp_path: Path, name: str) -> None:
    made, request, said = REFUSED[name]
    with pytest.raises(PlanError, match=said):
        locate_sets(traced(tmp_path / "r", **made), request)


def test_a_run_without_enough_scores_or_without_components_is_refused(tmp_path: Path) -> None:
    empty = create_run(tmp_path / "r", plan_of(20, ("object",)), MANIFEST, COMPONENTS, steps=STEPS)
    with pytest.raises(PlanError, match="scores of 0 captions of attribute 'object'"):
        locate_sets(empty, SetsRequest())
    tracer = Tracer()
    located = locate_sets(traced(tmp_path / "full"), SetsRequest())
    sets = tracer(planned_sets(located), str(tmp_path / "sets"))
    with pytest.raises(PlanError, match="ranks no components"):
        locate_sets(sets, SetsRequest())
