"""One worker, without Ray, on a tiny model: memory that runs out, and units that raise."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.model.opening import open_tokenizer
from engine.tracing import trace_unit as tracing
from engine.tracing.measures import MEASURES
from jobs.query.select import run_query
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from tests.rounding import ROUNDING

CAPTION = {"caption": "a red apple", "subject": "apple", "attribute": "object"}


@pytest.fixture
def fields(tiny_sd: Path, tiny_scorer: Path) -> dict[str, object]:
    return {
        "model": str(tiny_sd),
        "scorer": str(tiny_scorer),
        "captions": [CAPTION],
        "seeds": [0, 1],
        "parts": ["denoiser"],
        "kinds": ["cross_attn"],
        "numerics": {"steps": 2},
    }


@pytest.fixture
def run(tmp_path: Path, fields: dict[str, object]) -> TraceRun:
    return prepare_run(tmp_path / "run", check_plan(make_plan(fields)))


def scores(path: Path, fields: dict[str, object], noise: object) -> list[dict]:
    """Return the scores of a run that this process traces with a noise, or several."""
    of_noise = {**fields, "numerics": {"steps": 2, "noise_sigmas": noise}}
    run = prepare_run(path, check_plan(make_plan(of_noise)))
    worker = TraceWorker(run.location, rows=12, threads=1)
    for chunk in range(run.num_chunks):
        worker.run(Task(chunk=chunk))
    return run_query(run, "FROM scores ORDER BY ALL").to_pylist()


def test_several_noises_give_the_scores_of_a_run_of_each(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    one_seed = fields | {"seeds": [1], "interventions": ["restore", "other-draw"]}
    swept = scores(tmp_path / "swept", one_seed, [3.0, 0.5])
    singles = [
        row for noise in (0.5, 3) for row in scores(tmp_path / f"of {noise}", one_seed, noise)
    ]
    measured = ("clean", "corrupted", "patched")

    def key(row: dict) -> tuple:
        return tuple(str(value) for name, value in row.items() if name not in measured)

    assert len({key(row) for row in swept}) == len(swept) == len(singles)
    for row, single in zip(sorted(swept, key=key), sorted(singles, key=key), strict=True):
        assert key(row) == key(single)
        assert [row[name] for name in measured] == pytest.approx(
            [single[name] for name in measured], abs=ROUNDING
        )
    corrupted = {row["noise_sigmas"]: row["corrupted"] for row in swept}
    assert abs(corrupted[3.0] - corrupted[0.5]) > 10 * ROUNDING


def test_out_of_memory_halves_the_rows_and_changes_no_score(
    run: TraceRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_tried: list[int] = []
    decode = tracing.decode

    def tight_decode(model: object, latents_RCHW: torch.Tensor, **named: object) -> torch.Tensor:
        rows_tried.append(len(latents_RCHW))
        if len(latents_RCHW) > 3:
            raise torch.OutOfMemoryError("no memory left")
        return decode(model, latents_RCHW, **named)  # type: ignore[arg-type]

    task = Task(chunk=0)
    plenty, _ = TraceWorker(run.location, rows=12, threads=1).trace(task, 0)
    monkeypatch.setattr(tracing, "decode", tight_decode)
    worker = TraceWorker(run.location, rows=12, threads=1)
    tight, failure = worker.trace(task, 0)
    assert failure is None
    # The two reference runs fit; batches of changes halve until they do.
    assert rows_tried[0] == 2
    assert max(rows_tried[-4:]) <= 3 < max(rows_tried)
    for first, second in zip(plenty, tight, strict=True):
        assert first["component"] == second["component"]
        assert first["patched"] == pytest.approx(second["patched"], abs=ROUNDING)
    rows_tried.clear()
    worker.trace(task, 0)
    assert max(rows_tried) <= 3, "a worker remembers what fitted"


def test_a_unit_that_raises_is_recorded_and_tried_again(
    run: TraceRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = TraceWorker(run.location, rows=12, threads=1)
    trace_unit, calls = tracing.trace_unit, iter(range(9))

    def fails_first(*args: object, **named: object) -> object:
        if next(calls) == 0:
            raise ValueError("a broken unit")
        return trace_unit(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tracing, "trace_unit", fails_first)
    assert worker.run(Task(chunk=0)).errors == ("ValueError",)
    bad, good = (row.unit_id for row in run.unit_rows(Task(chunk=0)))
    (failure,) = run.failures()
    assert (failure.unit_id, failure.error) == (bad, "ValueError")
    assert "a broken unit" in failure.traceback
    assert scored(run) == {good}
    assert [row.unit_id for row in run.unit_rows(Task(chunk=0, generation=1))] == [bad]
    assert worker.run(Task(chunk=0, generation=1)).failed == 0
    assert not run.failures()
    assert scored(run) == {good, bad}


def scored(run: TraceRun) -> set[str]:
    found = run_query(run, "SELECT DISTINCT unit_id FROM scores")["unit_id"]
    return {str(unit_id) for unit_id in found.to_pylist()}


def test_a_caption_without_numbers_fails_alone(
    tmp_path: Path, tiny_sd: Path, tiny_scorer: Path
) -> None:
    folder = Path(shutil.copytree(tiny_sd, tmp_path / "model"))
    tokenizer = open_tokenizer(str(folder))
    (token, *_) = {*tokenizer("a ship").input_ids} - {*tokenizer("a red apple").input_ids}
    weights = load_file(folder / "text_encoder" / "model.safetensors")
    weights["embeddings.token_embedding.weight"][token] = torch.finfo(torch.float32).max
    save_file(weights, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    bad = {"caption": "a ship", "subject": "ship", "attribute": "object"}
    fields = {
        "model": str(folder),
        "scorer": str(tiny_scorer),
        "captions": [CAPTION, bad],
        "parts": ["text-encoder"],
        "numerics": {"steps": 1, "noise_absolute": 0.1},
    }
    run = prepare_run(tmp_path / "run", check_plan(make_plan(fields)))
    assert TraceWorker(run.location, rows=4, threads=1).run(Task(chunk=0)).errors == ("NotFinite",)
    (failure,) = run.failures()
    assert "'a ship'" in failure.message
    means = run_query(
        run, "SELECT avg(clean), avg(corrupted), avg(indirect_effect) FROM effects"
    ).to_pylist()[0]
    assert all(math.isfinite(mean) for mean in means.values())
    assert scored(run) == {run.unit_ids[0]}


def test_a_measure_without_numbers_fails_its_unit(
    run: TraceRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEASURES, "caption", lambda scene: scene.embedding_RD.sum(1) * torch.nan)
    worker = TraceWorker(run.location, rows=12, threads=1)
    assert worker.run(Task(chunk=0)).errors == ("NotFinite", "NotFinite")
    assert "clean is nan (" in run.failures()[0].message
    assert scored(run) == set()
