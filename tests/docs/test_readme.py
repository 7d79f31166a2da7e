"""Every command of the README and the docs is parsed, and run where this machine can.

- All are parsed by the real command line: what is missing or misspelled fails.
- Those that read a run, list or plan are run here, on a small run under the name that they give.
- Those of the README and the tutorial are run in order, from an empty folder, by a slow test.
- What needs a cluster or a bucket is run, with other names, by `tests/e2e/test_cluster_job.py`,
  `test_bucket.py` and `tests/jobs/cluster/test_submission.py`; what needs weights that are not in
  the repository (Stable Diffusion's) is parsed alone.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.app import app
from jobs.input.captions import pick
from jobs.input.probes import probe_set
from jobs.query.catalog import write_catalog
from jobs.runs.run import Task
from jobs.tracing.exact_plans import ExactRequest, exact_plan
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from schemas.component_set import Curve
from tests.docs.shown import PAGES, ROOT, Shown, blocks, inline_commands, shown_commands
from tests.made_up.report_run import make_report_edit, make_report_sweep
from tests.made_up.screened_run import make_exact_run, make_screened_run
from tests.made_up.set_run import make_set_run, set_of

READERS = (
    "rank", "query", "doctor", "components", "models", "trace status", "trace plan", "report",
    "plot",
)  # fmt: skip
HOURS = "--probe emoji-sd"
"""72 captions an attribute: hours, so that these lines are parsed alone."""


def of_line(shown: Shown) -> str:
    return f"{shown.page}: {shown.line}"


def test_every_block_says_what_it_is() -> None:
    for page in PAGES:
        for language, text in blocks(page):
            assert language in {"bash", "python", "text", "toml", "sql"}, f"{page.name}: {text}"
            if language != "bash":
                # The usage of a command, in the reference, is none.
                called = re.search(r"^(dqf|make) (?!.*\[OPTIONS\])", text, flags=re.MULTILINE)
                assert not called, f"{page.name}: {text}"


def test_the_readme_shows_both_make_commands_and_the_main_path() -> None:
    shown = "\n".join(c.line for p in ("dqf", "make") for c in shown_commands(p, PAGES[:1]))
    for needed in ("make demo", "make test", "dqf trace submit", "dqf rank", "dqf edit-batch"):
        assert needed in shown


@pytest.mark.parametrize("shown", sorted(set(shown_commands("dqf")), key=of_line), ids=of_line)
def test_shown_command_parses(shown: Shown) -> None:
    _parse(shown)


@pytest.mark.parametrize(
    "line", ["rank demo --tap 3", "rank", "trace plan --rows 4", "edit lists x", "doctor a b"]
)
def test_a_line_that_is_wrong_would_not_parse(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected"):
        _parse(Shown(page="", words=("dqf", *line.split())))


@pytest.mark.parametrize("shown", sorted(set(inline_commands()), key=of_line), ids=of_line)
def test_a_command_within_a_sentence_exists_with_its_options(shown: Shown) -> None:
    command, context = _command_of(shown)
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"-f"}
    assert {word for word in context.args if word.startswith("-")} <= known


def _parse(shown: Shown) -> None:
    command, context = _command_of(shown)
    command.make_context(context.info_name, list(context.args), parent=context.parent)


@cache
def _group() -> Any:
    return typer.main.get_command(app)


def _command_of(shown: Shown) -> tuple[Any, Any]:
    """Return a command and a context that has its arguments, unparsed."""
    group = _group()
    context = group.make_context("dqf", list(shown.words[1:]))
    command: Any = group
    while hasattr(command, "commands"):
        words = [*context._protected_args, *context.args]
        name, inner, rest = command.resolve_command(context, words)
        if hasattr(inner, "commands"):
            context = inner.make_context(name, list(rest), parent=context)
        else:
            context = type(context)(inner, info_name=name, parent=context)
            context.args = list(rest)
        command = inner
    return command, context


@pytest.mark.parametrize("shown", sorted(set(shown_commands("make")), key=of_line), ids=of_line)
def test_shown_make_target_exists(shown: Shown) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{shown.words[1]}:", makefile, flags=re.MULTILINE)


def test_shown_modules_exist() -> None:
    modules = {
        module
        for page in PAGES
        for module in re.findall(r"python -m ([\w.]+)", page.read_text())
        if module.split(".")[0] in ("bench", "cli", "docs", "engine", "jobs")
    }
    assert len(modules) > 8
    for module in modules:
        assert importlib.util.find_spec(module), module


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as the docs take for granted: docs/, a run, traced in two steps, one of sets,
    and a screened one with the exact one of its first states."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.md"))
    fields = {
        "captions": pick(probe_set("emoji-sd"), each=2),
        "components": [
            "text_encoder.layers.0.self_attn",
            "unet.up_blocks.1.resnets.0",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2",
        ],
        "interventions": ["restore", "other-seed", "other-caption"],
        "numerics": {"steps": 2},
    }
    run = prepare_run(folder / "runs" / "small", check_plan(make_plan(fields)))
    write_catalog(run)
    worker = TraceWorker(run.location, rows=12, threads=1)
    for chunk in range(run.num_chunks):
        assert not worker.run(Task(chunk=chunk)).errors
    sets = tuple(set_of(f"top-{n}", n, curve=Curve.TOP) for n in (1, 2, 3))
    make_set_run(folder / "runs" / "demo-sets", sets, lambda each, *_: len(each.members) / 3)
    screened = make_screened_run(folder / "runs" / "screened")
    exact = exact_plan(screened, ExactRequest(top=4, random=4))
    make_exact_run(folder / "runs" / "exact", exact)
    make_report_edit(folder / "edits" / "demo")
    make_report_sweep(folder / "sweeps" / "demo")
    return folder


def readers() -> list[Any]:
    """Return the commands that read; those that another page or run has too are slow."""
    shown = {c for c in shown_commands("dqf") if c.name in READERS and not c.needs}
    seen: set[tuple[str, ...]] = set()
    found: list[Any] = []
    for command in sorted(shown, key=of_line):
        marks = [pytest.mark.slow] if kind_of(command) in seen else []
        found.append(pytest.param(command, marks=marks, id=of_line(command)))
        seen.add(kind_of(command))
    return found


def kind_of(shown: Shown) -> tuple[str, ...]:
    """Return the words of a command but the name of its run.

    Of those that take seconds: the options of a report, the figure of a plot, nothing of a plan.
    """
    if shown.name == "report":
        return (shown.name, *sorted({word for word in shown.words if word.startswith("-")}))
    if shown.name == "plot":
        return (shown.name, shown.words[shown.words.index("--figure") + 1])
    if shown.name == "trace plan":
        return (shown.name,)
    start = 2 + len(shown.name.split())
    return (shown.name, *shown.words[start:])


@pytest.mark.parametrize("shown", readers())
def test_a_shown_reader_runs(shown: Shown, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    words = list(shown.words[1:])
    if shown.name == "trace plan":
        words.append("--no-calibrate")  # timing this machine is not what is tested
    elif shown.name not in ("models", "components"):
        # `dqf query` takes several runs, each with a name before it if it wants.
        named = (re.fullmatch(r"(?:\w+=)?([a-z]\w*)", word) for word in words)
        for name in {match[1] for match in named if match}:
            if not Path("runs", name).exists():
                Path("runs", name).symlink_to("small")
    for option, value in pairwise(words):
        if option == "--edit" and not Path(value).exists():
            Path(value).symlink_to("demo")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    written = [value for option, value in pairwise(words) if option == "--out"]
    assert all(Path(path).stat().st_size for path in written)
    assert written or result.stdout.strip()


@pytest.mark.slow
def test_the_readme_and_the_tutorial_run_from_beginning_to_end(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.md"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pages = [ROOT / "README.md", ROOT / "docs" / "tutorial.md"]
    shown = [c for c in shown_commands("dqf", pages) if not c.needs and HOURS not in c.line]
    assert len(shown) > 25
    done: set[str] = set()
    for command in shown:
        if command.line in done:
            continue
        words = [sys.executable, "-m", "dqf", *command.words[1:]]
        result = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, f"{command.line}\n{result.stdout}{result.stderr}"
        done.add(command.line)
    assert (tmp_path / "cat.png").is_file()
    assert (tmp_path / "edits/first/evaluation/evaluation.json").is_file()
