"""The page on Python: its examples print what it says, and it names all that is public."""

import ast
import doctest
import inspect
import re
import shutil
from pathlib import Path

import pytest

import dqf
from jobs.query.catalog import CATALOG
from jobs.runs.trace_run import TraceRun
from tests.docs.shown import ROOT, blocks

PAGE = ROOT / "docs" / "python.md"
PROMPT = ">>> "
PROGRAMS = [text for language, text in blocks(PAGE) if language == "python"]


def test_the_examples_print_what_the_page_says(
    tmp_path: Path, traced_run: TraceRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs" / "demo"
    shutil.copytree(traced_run.location, folder)
    (folder / CATALOG).unlink()  # its paths are those of the run copied
    monkeypatch.chdir(tmp_path)
    examples = "\n".join(text for text in PROGRAMS if text.startswith(PROMPT))
    session = doctest.DocTestParser().get_doctest(examples, {}, PAGE.name, str(PAGE), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    result = runner.run(session, out=report.append)
    assert not result.failed, "".join(report)
    assert result.attempted > 30


def test_the_one_call_that_is_not_run_has_the_arguments_of_the_function() -> None:
    (program,) = [text for text in PROGRAMS if not text.startswith(PROMPT)]
    calls = {
        node.func.attr: node
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    for name in ("evaluate", "Cluster"):
        given = {word.arg: word.value for word in calls[name].keywords if word.arg}
        inspect.signature(getattr(dqf, name)).bind(*calls[name].args, **given)


def test_the_table_of_names_is_the_public_face() -> None:
    _, _, table = PAGE.read_text().partition("\n## The names\n")
    cells = re.findall(r"^\| (`.+?) \|", table, flags=re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(dqf.__all__)
