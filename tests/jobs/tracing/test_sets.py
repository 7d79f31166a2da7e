"""Sets in a plan: what is refused, and a run of them from plan to scores."""

from pathlib import Path
from typing import Any

import pytest

from jobs.doctor.examine import examine
from jobs.doctor.findings import State
from jobs.query.select import run_query
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from schemas.component import Part
from schemas.errors import PlanError, StoreError
from tests.made_up.traced import CAPTIONS

RESNET, MIDDLE = "unet.down_blocks.1.resnets.0", "unet.mid_block.resnets.0"
ATTN2 = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
TEXT = "text_encoder.layers.0.self_attn"
SETS = [
    {"name": "both", "components": [f"{TEXT}@subject", f"{RESNET}@0:1", ATTN2]},
    {"name": "text", "components": [TEXT, "text_encoder.layers.1.mlp"]},
    {"name": "of-object", "components": [RESNET, MIDDLE], "attribute": "object"},
    {"name": "of-color", "components": [ATTN2], "attribute": "color"},
    {"name": "of-color-too", "components": [ATTN2, f"{RESNET}@1:2"], "attribute": "color"},
]


def fields(model: Path, scorer: Path, **more: Any) -> dict[str, Any]:
    return {
        "model": str(model), "scorer": str(scorer), "captions": CAPTIONS, "sets": SETS,
        "interventions": ["restore", "corrupt"], "measures": ["target"], "chunk_units": 1,
        "numerics": {"steps": 2}, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path, tiny_scorer: Path) -> TraceRun:
    """Return a finished run whose first chunk was committed by a worker that then died."""
    location = tmp_path_factory.mktemp("runs") / "sets"
    made = prepare_run(location, check_plan(make_plan(fields(tiny_sd, tiny_scorer))))
    TraceWorker(made.location, rows=16, threads=1).run(Task(chunk=0))
    again = prepare_run(location, check_plan(make_plan(fields(tiny_sd, tiny_scorer))))
    worker = TraceWorker(again.location, rows=16, threads=1)
    assert again.done_chunks() == {0}
    for chunk in range(again.num_chunks):  # the first one anew: its second copy is dropped
        worker.run(Task(chunk=chunk))
    return open_run(location)


def test_every_set_is_scored_once_for_the_captions_of_its_attribute(run: TraceRun) -> None:
    rows = run_query(
        run,
        "SELECT component, part, attribute, intervention, count(*) AS n, min(step_start) AS start, "
        "max(step_stop) AS stop, any_value(token) AS token FROM trials GROUP BY ALL",
    ).to_pylist()
    found = {(r["component"], r["attribute"], r["intervention"]): r for r in rows}
    every = [(s["name"], s.get("attribute")) for s in SETS]
    assert set(found) == {
        (name, attribute, intervention)
        for name, of in every
        for attribute in ("object", "color")
        for intervention in ("restore", "corrupt")
        if of in (None, attribute)
    }
    assert {row["n"] for row in rows} == {2}  # captions
    both = found["both", "object", "restore"]
    assert (both["part"], both["start"], both["stop"], both["token"]) == (
        "denoiser", 0, 2, "several",
    )  # fmt: skip
    text = found["text", "object", "restore"]
    assert (text["part"], text["token"]) == ("text-encoder", "last_subject")


def test_the_doctor_finds_it_whole_and_nothing_is_ranked(run: TraceRun) -> None:
    report = examine(run.location, lambda _: None)
    assert {(f.check, f.todo) for f in report.findings if f.state is State.WRONG} == set()
    assert [slab.part for slab in run.units.slabs] == [Part.DENOISER, Part.TEXT_ENCODER]
    for view in ("ranking", "concentration", "components"):
        assert run_query(run, f"FROM {view}").num_rows == 0
    slabs = run_query(run, "SELECT components FROM slabs ORDER BY slab").to_pylist()
    assert [row["components"] for row in slabs] == [
        ["both", "of-object", "of-color", "of-color-too"], ["text"],
    ]  # fmt: skip


def test_the_order_of_components_changes_no_id(
    run: TraceRun, tmp_path: Path, tiny_sd: Path, tiny_scorer: Path
) -> None:
    turned = [{**each, "components": each["components"][::-1]} for each in SETS]
    planned = check_plan(make_plan(fields(tiny_sd, tiny_scorer, sets=turned)))
    assert planned.plan == run.plan
    other = prepare_run(tmp_path / "turned", planned)
    assert list(other.unit_ids) == list(run.unit_ids)
    fewer = fields(tiny_sd, tiny_scorer, sets=SETS[:2])
    changed = prepare_run(tmp_path / "fewer", check_plan(make_plan(fewer)))
    ids, others = list(run.unit_ids), list(changed.unit_ids)
    assert ids[1::2] == others[1::2]  # of the text encoder, whose set is there
    assert not set(ids[::2]) & set(others[::2])
    with pytest.raises(StoreError, match="another sets"):
        prepare_run(run.location, check_plan(make_plan(fewer)))


def test_sets_go_alone_unless_components_or_kinds_are_named(
    tiny_sd: Path, tiny_scorer: Path
) -> None:
    alone = make_plan(fields(tiny_sd, tiny_scorer))
    assert alone.components == ()
    beside = make_plan(fields(tiny_sd, tiny_scorer, components=[RESNET], parts=["denoiser"]))
    assert [c.name for c in check_plan(beside).components] == [RESNET]
    assert make_plan(fields(tiny_sd, tiny_scorer, kinds=["resnet"])).components is None


def a_set(*components: str, name: str = "s", attribute: str | None = None) -> dict[str, Any]:
    return {"name": name, "components": list(components), "attribute": attribute}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"sets": [a_set(RESNET, RESNET)]}, "a set has .*resnets.0' twice"),
        ({"sets": [a_set(RESNET), a_set(MIDDLE)]}, "sets has 's' twice"),
        ({"sets": [a_set(RESNET, name="a b")]}, "of letters, digits"),
        ({"sets": {"s": []}}, "at least 1 item"),
        ({"sets": [a_set(RESNET, attribute="style")]}, "'style', which no caption has"),
        ({"sets": [a_set(RESNET, attribute="color")]}, "'object' have no set of the denoiser"),
        ({"sets": [a_set(ATTN2)], "patches": ["contribution"]}, "one has to have a contribution"),
        ({"sets": [a_set(TEXT)], "interventions": ["other-seed"]}, "--intervention other-seed and"),
        (
            {"sets": [a_set(TEXT)], "interventions": ["restore", "swap"]},
            "with intervention swap",
        ),
        (
            {"sets": [a_set(TEXT, RESNET)], "numerics": {"steps": 2, "noise_at": "output"}},
            "leave out --noise-at output",
        ),
    ],
)
def test_plans_that_are_refused(
    tiny_sd: Path, tiny_scorer: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        check_plan(make_plan(fields(tiny_sd, tiny_scorer, **more)))
