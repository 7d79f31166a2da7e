"""Every recipe of the SQL cookbook runs on a small real run."""

import shutil
from pathlib import Path

import pytest

from jobs.query.catalog import CATALOG, write_catalog
from jobs.query.results import query
from jobs.runs.trace_run import TraceRun, open_run
from tests.docs.shown import ROOT, blocks

PAGE = ROOT / "docs/sql.md"
RECIPES = [text for language, text in blocks(PAGE) if language == "sql"]
PROGRAMS = [text for language, text in blocks(PAGE) if language == "python"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, traced_run: TraceRun) -> Path:
    """Return a folder that has the runs `demo` and `other`."""
    folder = tmp_path_factory.mktemp("cookbook")
    for name in ("demo", "other"):
        shutil.copytree(traced_run.location, folder / "runs" / name)
        (folder / "runs" / name / CATALOG).unlink()  # its paths are those of the run copied
        write_catalog(open_run(folder / "runs" / name))
    query(open_run(folder / "runs/demo"), "FROM ranking LIMIT 1")
    return folder


@pytest.mark.parametrize("sql", RECIPES, ids=lambda sql: sql.splitlines()[0])
def test_a_recipe_answers(folder: Path, sql: str) -> None:
    runs = {name: open_run(folder / "runs" / name) for name in ("demo", "other")}
    found = query(runs, sql)
    # Nothing fails there, a tiny model with random weights has no causal state, and there is one
    # noise and no set.
    empty = (
        *("FROM failures", "FROM causal_states", "weak.noise_sigmas < strong.noise_sigmas"),
        *("FROM set_curves", "FROM set_members"),
    )
    may_be_empty = any(text in sql for text in empty)
    assert found.num_rows or may_be_empty


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.splitlines()[0])
def test_a_program_runs(
    folder: Path, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    scope: dict[str, object] = {}
    exec(compile(program, str(PAGE), "exec"), scope)
    frames = ("leading", "both", "frame", "polars_frame", "table", "captions")
    assert all(len(scope[name]) for name in frames if name in scope)  # type: ignore[arg-type]
    assert ("print(" in program) == bool(capsys.readouterr().out)


def test_there_are_recipes_and_programs() -> None:
    assert len(RECIPES) > 15
    assert len(PROGRAMS) == 4
