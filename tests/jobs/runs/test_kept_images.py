"""Kept images: those of the stated rule, next to unchanged scores, and known to the doctor."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.model.opening import open_model
from engine.model.sampling import pixels_of
from engine.model.scorer import open_scorer
from engine.tracing.interventions import Patch
from engine.tracing.kept import ImageSelector, Role
from engine.tracing.trace_unit import trace_images, trace_unit
from jobs.doctor.examine import examine, repair
from jobs.doctor.findings import State
from jobs.query.catalog import write_catalog
from jobs.query.select import run_query
from jobs.runs.kept_images import (
    CAPTIONS,
    CorruptImage,
    image_name,
    keep_images,
    kept_images,
    picked_units,
    read_images,
)
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from schemas.intervention import Intervention
from tests.made_up.small_run import all_units, make_run

OBJECTS = ("apple", "table", "castle", "forest", "sea")
LINES = [(f"a photo of the {name}", name, "object") for name in OBJECTS]
LINES.insert(2, ("a painting of birds", "painting", "style"))


@pytest.fixture
def fields(tiny_sd: Path, tiny_scorer: Path) -> dict[str, object]:
    names = ("caption", "subject", "attribute")
    return {
        "model": str(tiny_sd),
        "scorer": str(tiny_scorer),
        "captions": [dict(zip(names, line, strict=True)) for line in LINES],
        "numerics": {"steps": 2},
    }


def traced(path: Path, fields: dict) -> TraceRun:
    """Return a run that one worker has traced."""
    run = prepare_run(path, check_plan(make_plan(fields)))
    write_catalog(run)
    worker = TraceWorker(run.location, rows=12, threads=1)
    for chunk in range(run.num_chunks):
        assert not worker.run(Task(chunk=chunk)).errors
    return run


def checks(run: TraceRun) -> dict[str, tuple[State, str]]:
    findings = examine(run.location, lambda _: None).findings
    return {f.check: (f.state, f.found) for f in findings}


def test_a_worker_keeps_the_images_that_the_rule_picks(tmp_path: Path, fields: dict) -> None:
    fields |= {"parts": ["text-encoder"], "seeds": [3, 1], "noise_draws": 2, "slab_components": 2}
    fields["numerics"] = {"steps": 1}
    run = traced(tmp_path / "r", fields)
    found = kept_images(run)
    # The fifth object's are not kept; each of the others has two slabs of two components.
    assert [k.caption for k in found[::2]] == [line[0] for line in LINES[:-1]]
    assert [k.caption for k in found[1::2]] == [line[0] for line in LINES[:-1]]
    assert {(k.seed, k.draw, k.measure, k.intervention) for k in found} == {
        (3, 0, "target", "restore")
    }
    states = checks(run)
    assert {c for c, (s, _) in states.items() if s is not State.OK} <= {"processes"}, states
    assert states["images"][1] == "10 files of kept images are whole"

    model, scorer = open_model(run.plan.model), open_scorer(run.plan.scorer)
    units = {row.unit_id: row.unit for row in all_units(run)}
    for kept in (found[0], found[3]):
        unit = units[kept.unit_id]
        trials = [
            t
            for t in trace_unit(model, scorer, unit, numerics=run.plan.numerics, rows=12)
            if t.measure == "target"
        ]
        ranked = sorted(trials, key=lambda t: -t.patched)
        shown = {i.role: i for i in kept.images}
        assert list(shown) == ["clean", "corrupted", "best", "worst"]
        assert shown["clean"].score == pytest.approx(trials[0].clean, abs=1e-6)
        assert shown["corrupted"].score == pytest.approx(trials[0].corrupted, abs=1e-6)
        for role, trial in (("best", ranked[0]), ("worst", ranked[-1])):
            assert shown[role].component == trial.component
            assert (shown[role].token, shown[role].step_stop) == ("last_subject", 1)
            assert shown[role].score == pytest.approx(trial.patched, abs=1e-6)
        pair, images = trace_images(model, unit, numerics=run.plan.numerics, rows=12)
        drawn = {change.component: image for change, image in images.items()}
        assert is_near(shown["clean"].image, pair[0])
        assert is_near(shown["corrupted"].image, pair[1])
        assert is_near(shown["best"].image, drawn[ranked[0].component])
        assert is_near(shown["worst"].image, drawn[ranked[-1].component])


def is_near(image: Image.Image, image_CHW: torch.Tensor) -> bool:
    return bool(np.abs(np.asarray(image).astype(int) - pixels_of(image_CHW)).max() <= 1)


def test_controls_and_other_scores_leave_the_choice_to_restored_runs(
    tmp_path: Path, fields: dict
) -> None:
    fields |= {
        "captions": fields["captions"][:1],
        "parts": ["denoiser"],
        "kinds": ["cross_attn"],
        "windows": ["each"],
        "interventions": ["other-seed", "restore"],
        "measures": ["clean-latent", "caption"],
    }
    run = traced(tmp_path / "r", fields)
    (kept,) = kept_images(run)
    assert (kept.measure, kept.intervention) == ("clean-latent", "restore")
    extremes = run_query(
        run,
        "SELECT component, step_start, step_stop, patched FROM scores "
        "WHERE measure = 'clean-latent' AND intervention = 'restore' ORDER BY patched DESC",
    ).to_pylist()
    for role, row in (("best", extremes[0]), ("worst", extremes[-1])):
        (shown,) = [image for image in kept.images if image.role == role]
        assert (shown.component, shown.step_start) == (row["component"], row["step_start"])
        assert (shown.score, shown.step_stop) == (row["patched"], row["step_stop"])


def test_scores_are_kept_where_images_cannot_be_written(tmp_path: Path, fields: dict) -> None:
    fields |= {"captions": fields["captions"][:1], "parts": ["text-encoder"]}
    run = prepare_run(tmp_path / "r", check_plan(make_plan(fields)))
    Path(run.location, "images").write_text("in the way")
    done = TraceWorker(run.location, rows=12, threads=1).run(Task(chunk=0))
    assert (done.units, done.failed) == (1, 0)
    assert run_query(run, "FROM scores").num_rows == 4 * 2
    assert Path(run.location, "images").read_text() == "in the way"


def selector(size: tuple[int, int] = (16, 16)) -> ImageSelector:
    """Return a selector that has seen four runs of random images."""
    seen = ImageSelector.of(["target"], [Intervention.RESTORE])
    generator = torch.Generator().manual_seed(0)
    images_RCHW = torch.rand((4, 3, *size), generator=generator)
    values = [{"target": score} for score in (0.9, 0.1, 0.4, 0.4)]
    seen.see_references(images_RCHW[:2], values[:2])
    patches = [patch(name) for name in ("a", "b")]
    seen.see_patches(patches, images_RCHW[2:], values[2:])
    return seen


def patch(name: str) -> Patch:
    return Patch(
        component=name, sites=(), intervention=Intervention.RESTORE, window=(0, 2), base=1,
        sources=(0,),
    )  # fmt: skip


def test_of_equal_scores_the_first_is_kept() -> None:
    kept = selector().kept
    assert [kept[role].patch for role in (Role.BEST, Role.WORST)] == [patch("a"), patch("a")]


def test_large_images_are_scaled_down(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    unit_id, unit = next(iter(picked_units(run).items()))
    keep_images(run, unit_id, unit, selector((512, 320)))
    (kept,) = kept_images(run)
    assert {image.image.size for image in kept.images} == {(160, 256)}


def test_a_quoted_caption_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    unit_id, unit = next(iter(picked_units(run).items()))
    text = 'a "cat" <b>\u05d7\u05ea\u05d5\u05dc</b> \U0001f600'
    caption = unit.caption.model_copy(update={"caption": text})
    object.__setattr__(unit, "caption", caption)
    keep_images(run, unit_id, unit, selector())
    assert kept_images(run)[0].caption == text


@pytest.fixture
def shown(tmp_path: Path) -> TraceRun:
    """Return a run without scores and with the images of each picked unit."""
    run = make_run(tmp_path / "r")
    write_catalog(run)
    for unit_id, unit in picked_units(run).items():
        keep_images(run, unit_id, unit, selector())
    return run


def test_no_flipped_bit_of_an_image_is_shown(shown: TraceRun) -> None:
    unit_id = next(iter(picked_units(shown)))
    content = shown.storage.read(image_name(unit_id))
    whole = read_images(content, unit_id)
    unseen = 0
    for place in range(0, len(content), 7):
        flipped = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        try:
            assert read_images(flipped, unit_id) == whole
            unseen += 1
        except CorruptImage:
            continue
    assert unseen < 4  # bits of the last chunk, which says that the file ends


DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "flipped": lambda content: content[:-30] + bytes([content[-30] ^ 1]) + content[-29:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_doctor_finds_a_damaged_image_and_moves_it_away(shown: TraceRun, damage: str) -> None:
    name = image_name(next(iter(picked_units(shown))))
    path = Path(shown.location, name)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    state, found = checks(shown)["images"]
    assert state is State.WRONG
    assert name in found
    assert len(kept_images(shown)) == 2
    report = examine(shown.location, lambda _: None)
    assert report.damaged == (name,)
    assert list(repair(open_run(shown.location), report)) == [f"{name} was moved to quarantine/"]
    assert checks(shown)["images"] == (State.OK, "2 files of kept images are whole")


def test_the_doctor_finds_images_of_other_units(shown: TraceRun) -> None:
    first, second, *_ = picked_units(shown)
    content = shown.storage.read(image_name(first))
    path = Path(shown.location, image_name(second))
    path.unlink()
    shown.storage.create(image_name(second), content)
    assert f"holds the images of unit {first}" in checks(shown)["images"][1]
    shown.storage.create(image_name("0" * 32), content)
    assert f"{image_name('0' * 32)} belongs to no unit" in checks(shown)["images"][1]
    assert len(kept_images(shown)) == 2


def test_a_plain_picture_among_the_images_is_no_file_of_the_run(shown: TraceRun) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, format="PNG")
    shown.storage.create("images/holiday.png", file.getvalue())
    state, found = checks(shown)["files"]
    assert state is State.NOTE
    assert "images/holiday.png" in found
    shown.storage.create(image_name("1" * 32), file.getvalue())
    assert checks(shown)["images"][0] is State.WRONG


def test_four_captions_of_each_attribute_are_picked_in_the_plans_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", seeds=(7, 1))
    picked = list(picked_units(run).values())
    assert [unit.caption for unit in picked] == list(run.plan.captions)
    assert {unit.seed for unit in picked} == {7}
    assert CAPTIONS == 4
