"""Commands that work on a run whose units fail: they print what is measured, and end with 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cli.app import app
from jobs.evaluation.attack import prepare_attack
from jobs.evaluation.attack_plan import AttackRequest
from jobs.evaluation.evaluate import EvaluationRequest, EvaluationSettings, prepare_evaluation
from jobs.evaluation.sweep import Anchor, Grid, prepare_sweep
from jobs.runs.parts import Failure
from jobs.runs.run import Run, Task
from schemas.errors import StoreError
from schemas.prompt_set import PromptSet
from tests.made_up.evaluated import CONCEPTS, few_names, write_edit

SCORER = "builtin:emoji-sd"
LAYER = "text_encoder.layers.0.self_attn"
Made = tuple[Run[Any], list[str]]
"""A run, and the command that works on it."""


def evaluation(model: Path, folder: Path) -> Made:
    edit = write_edit(folder / "edit", model, torch.zeros_like)
    request = EvaluationRequest(edit=edit, seeds=1, steps=1, scorer=SCORER, prompts=PromptSet.SMALL)
    command = ["edit", "evaluate", str(edit), "--images", "1", "--steps", "1", "--scorer", SCORER]
    return prepare_evaluation(request, edit / "evaluation"), [*command, "--prompt-set", "small"]


def attack(model: Path, folder: Path) -> Made:
    edit = write_edit(folder / "edit", model, torch.zeros_like)
    request = AttackRequest(edit=edit, seeds=2, scorer=SCORER)
    command = ["edit", "attack", str(edit), "--images", "2", "--scorer", SCORER]
    return prepare_attack(request, edit / "attack"), command


def sweep(model: Path, folder: Path) -> Made:
    concepts, out = folder / "concepts.csv", folder / "sweep"
    concepts.write_text("concept,replacement\ncat,bus\nhouse,\n")
    grid = Grid(components=(LAYER,), anchors=(Anchor.IDENTITY,), strengths=(1.0,), ridges=(1e-3,))
    asked = EvaluationSettings(seeds=1, steps=1, scorer=SCORER, prompts=PromptSet.SMALL)
    run = prepare_sweep(CONCEPTS, grid, out, model=str(model), asked=asked, note=print)
    command = ["edit", "sweep", str(concepts), "--out", str(out), "--layer", LAYER]
    command += ["--anchor", "identity", "--ridge", "1e-3", "--images", "1"]
    return run, [*command, "--steps", "1", "--scorer", SCORER, "--model", str(model)]


def commit_failed(run: Run[Any]) -> None:
    """Commit each chunk as if all its units had failed."""
    for chunk in range(run.num_chunks):
        ids = [run.unit_ids[ordinal] for ordinal in run.ordinals(chunk)]
        failures = [
            Failure(unit_id=i, error="ValueError", message="odd", traceback="") for i in ids
        ]
        run.commit(Task(chunk=chunk), [], failures, units=len(ids))


@pytest.mark.parametrize("make", [evaluation, attack, sweep])
def test_failed_units_are_said_and_end_a_command_with_1(
    tmp_path: Path, make: Callable[[Path, Path], Made]
) -> None:
    run, command = make(few_names(tmp_path / "few"), tmp_path)
    run.complete()
    total = len(run.unit_ids)
    # Nothing has failed yet: there is nothing to try again, and the open chunks stay open.
    done = CliRunner().invoke(app, [*command, "--retry-failed", "--quiet"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.stderr.split())
    assert f"{total} of {total} units of {run.name} have no scores: the numbers are of" in said
    commit_failed(run)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert f"{total} of {total} units failed; --retry-failed tries them again" in done.output
    assert f"{total} of {total} units done" in done.output


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (evaluation, "evaluation.json"),
        (evaluation, "images"),
        (evaluation, "images/concept.png"),
        (attack, "attack.json"),
        (sweep, "../sweep.json"),
    ],
)
def test_what_could_not_be_written_in_the_end_is_said_before_ray_starts(
    tmp_path: Path, make: Callable[[Path, Path], Made], name: str
) -> None:
    run, command = make(few_names(tmp_path / "few"), tmp_path)
    path = Path(run.location, name)
    if name == "images":
        path.touch()
    else:
        path.mkdir(parents=True)
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, StoreError)
    assert str(done.exception).startswith("cannot write ")
    assert path.name in str(done.exception)
    assert not Path(run.location, "attempts").exists()
