"""`dqf trace sets RUN` on Ray with the embedded model: rounds, resuming, curves."""

from pathlib import Path

import pytest

from jobs.doctor.examine import examine
from jobs.doctor.findings import State
from jobs.input.probes import probe_set
from jobs.query.select import run_query
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from schemas.component_set import Curve
from tests.cli.test_commands import dqf
from tests.rounding import ROUNDING

CAPTIONS = 16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    """Return a run of the embedded model's text encoder, traced in this process."""
    captions = [caption for caption in probe_set("emoji-sd") if caption.attribute == "object"]
    fields = {
        "captions": [caption.model_dump() for caption in captions[:CAPTIONS]],
        "parts": ["text-encoder"],
        "kinds": ["self_attn", "mlp"],
        "measures": ["target"],
        "numerics": {"steps": 3},
    }
    run = prepare_run(tmp_path_factory.mktemp("runs") / "r", check_plan(make_plan(fields)))
    worker = TraceWorker(run.location, rows=12, threads=1)
    for chunk in range(run.num_chunks):
        worker.run(Task(chunk=chunk))
    return run


def test_sets_of_a_run_are_traced_in_rounds(source: TraceRun) -> None:
    options = ("--top", "3", "--random", "1", "--actors", "1", "--rows", "12", "--format", "csv")
    dry = dqf("trace", "sets", source.location, *options, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    done = dqf("trace", "sets", source.location, *options)
    assert done.returncode == 0, done.stderr
    run = open_run(f"{source.location}-sets")
    chosen = run.plan.located_sets
    assert chosen is not None
    rounds = sorted(Path(source.location).parent.glob("r-sets-text-encoder-round-*"))
    assert [open_run(each).id for each in rounds] == list(chosen.rounds)
    ranked = {caption.id for caption in open_run(rounds[0]).plan.captions}
    assert ranked == set(chosen.ranked_captions)
    assert not ranked & {caption.id for caption in run.plan.captions}
    counts = run_query(run, "SELECT curve, size, count(*) AS n FROM set_effects GROUP BY ALL")
    found = {(row["curve"], row["size"]): row["n"] for row in counts.to_pylist()}
    assert {size for curve, size in found if curve == "top"} == {1, 2, 3}
    assert set(found.values()) == {2}  # restored and corrupted
    assert len(done.stdout.splitlines()) == 1 + run_query(run, "FROM set_curves").num_rows
    assert not [f for f in examine(run.location, lambda _: None).findings if f.state is State.WRONG]
    # A set of one component has that component's own effect.
    (first,) = (each for each in run.sets if each.name == "text-encoder-top-1")
    assert first.curve is Curve.TOP
    held_out = ", ".join(f"'{caption.id}'" for caption in run.plan.captions)
    own = f"""SELECT caption_id, patched FROM scores WHERE component = '{{}}'
      AND intervention = 'restore' AND caption_id IN ({held_out})
      ORDER BY caption_id"""
    alone = run_query(source, own.format(first.members[0].component.name)).to_pylist()
    together = run_query(run, own.format(first.name)).to_pylist()
    assert [row["caption_id"] for row in alone] == [row["caption_id"] for row in together]
    assert [row["patched"] for row in alone] == pytest.approx(
        [row["patched"] for row in together], abs=ROUNDING
    )
    again = dqf("trace", "sets", source.location, *options)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
