"""The command line as users meet it: fast, helpful, and one sentence for what they can fix."""

import io
import json
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

from cli.app import main
from jobs.cluster.processes import DRIVER_VARIABLE, orphans
from jobs.runs.trace_run import TraceRun
from tests.made_up.small_run import commit_scores, make_run

COMMANDS = (
    ("trace", "submit"), ("trace", "plan"), ("trace", "resume"), ("trace", "status"),
    ("trace", "logs"), ("trace", "stop"), ("trace", "list"), ("rank",), ("query",), ("models",),
    ("report",), ("plot",), ("components",), ("edit-batch",), ("doctor",), ("generate",),
    ("edit", "list"), ("edit", "create"), ("edit", "diff"), ("edit", "attack"), ("export",),
)  # fmt: skip

CONCEPTS = str(Path(__file__).parents[2] / "docs/examples/concepts.csv")
EDIT = (
    "edit-batch", CONCEPTS, "--model", "emoji-sd", "--layer", "text_encoder.layers.0.self_attn",
)  # fmt: skip


def dqf(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Call the command's entry point in this process, which imports the frameworks once."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with (
        redirect_stdout(out),
        redirect_stderr(errors),
        chdir(cwd or "."),
        mock.patch.object(sys, "argv", ["dqf", *arguments]),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())


@pytest.fixture
def run(tmp_path: Path) -> TraceRun:
    run = make_run(tmp_path / "runs" / "r")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    return run


def test_the_installed_command_runs() -> None:
    command = [str(Path(sys.executable).with_name("dqf")), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("dqf 0.")


def test_the_command_line_starts_without_frameworks() -> None:
    code = "import sys, cli.app; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for heavy in ("torch", "ray", "duckdb", "diffusers", "transformers", "open_clip", "pyarrow"):
        assert f"'{heavy}'" not in loaded


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: tuple[str, ...]) -> None:
    result = dqf(*command, "--help")
    assert result.returncode == 0
    assert f"dqf {' '.join(command)}" in result.stdout.split("Example:")[1]


@pytest.mark.parametrize("command", ["trace", "rank", "edit"])
def test_help_names_the_glossary(command: str) -> None:
    page = "docs/glossary.md"
    assert page in dqf(command, "--help").stdout
    assert (Path(__file__).parents[2] / page).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rank", "nowhere"), "no run at runs/nowhere"),
        (("trace", "status", "nowhere"), "no run at runs/nowhere"),
        (("doctor", "nowhere"), "no run at runs/nowhere"),
        (("report", "nowhere"), "no run at runs/nowhere"),
        (("report", "r", "--edit", "nowhere"), "nowhere is not an edit folder, nor a sweep"),
        (("report",), "name a run, or give --all"),
        (("report", "r", "--all"), "RUN has no use with --all"),
        (("report", "--all", "--edit", "x"), "--edit has no use with --all"),
        (
            ("plot", "r", "--figure", "overlaps", "--attribute", "object", "--out", "a.png"),
            "'overlaps' does not use --attribute",
        ),
        (("plot", "nowhere", "--figure", "ranking", "--out", "a.png"), "no run at runs/nowhere"),
        (("plot", "r", "--figure", "ranking", "--out", "a.gif"), "saved as .png, .svg, .pdf"),
        (("plot", "r", "--figure", "tokens", "--out", "a.png"), "needs the text encoder at"),
        (("plot", "r", "--figure", "ranking", "--part", "denoiser", "--out", "a.png"), "no part"),
        (("query", "r", "DROP VIEW ranking"), "one SELECT"),
        (("rank", "r", "--attribute", "color"), "object, style"),
        (("rank", "r", "--measure", "x"), "no measure 'x': it has caption, target"),
        (("rank", "r", "--intervention", "zero"), "no intervention 'zero': it has restore"),
        (("rank", "r", "--beyond", "other-seed"), "no intervention 'other-seed': it has restore"),
        (("rank", "r", "--beyond", "restore"), "--beyond is one of other-seed, other-caption"),
        (("trace", "plan", "--window", "21:22"), "reaches past the last of 20 steps"),
        (("trace", "plan", "--scheduler", "foo"), "unknown scheduler 'foo': there are ddim"),
        (("trace", "submit", "--corruption", "counterfactual"), "has no counterfactual"),
        (("trace", "submit", "--measure", "foo", "--run", "new"), "unknown measure 'foo'"),
        (
            (*EDIT[:-1], "text_encoder.layers.0.self_attn.heads.0", "--out", "new"),
            "cannot be edited",
        ),
        (("trace", "submit", "--captions", "no.csv"), "no such file"),
        (("trace", "submit", "--probe", "sdd"), "emoji-sd, sd"),
        (("trace", "submit", "--part", "vae"), "denoiser, text-encoder or both"),
        (("trace", "submit", "--model", "sd-1.4"), "--probe sd"),
        (("trace", "submit", "--address", "http://127.0.0.1:1"), "127.0.0.1:1"),
        (("trace", "submit", "--scorer", "foo", "--run", "new"), "unknown scorer 'foo'"),
        (("trace", "submit", "--run", "/proc/new"), "cannot use /proc"),
        (("trace", "submit", "--actors", "1000000000"), "this machine can have"),
        (("generate", "a cat", "--seed", str(2**63)), "--seed"),
        ((*EDIT, "--out", "/proc/new"), "cannot write in /proc"),
        ((*EDIT, "--out", "new", "--scorer", "foo"), "unknown scorer 'foo'"),
        ((*EDIT[:-1], "unet.mid_block.resnets.0", "--out", "new"), "cannot be edited"),
        (("trace", "submit", "--address", "127.0.0.1:1"), "no Ray cluster answers"),
        (("components", "no-such-model"), "unknown model"),
        (("trace", "resume", "nowhere"), "no run at runs/nowhere"),
        (("trace", "logs", "r"), "nothing has worked on run"),
        (("trace", "stop", "r"), "nothing has worked on run"),
        (("trace", "stop", "r", "--address", "HEAD:6379"), "takes no jobs"),
        (("rank", "s3//bucket/run"), "no run at s3//bucket/run"),
        (("rank", "ftp://bucket/run"), "is not a storage"),
    ],
)
def test_what_a_user_can_fix_is_one_sentence(
    run: TraceRun, arguments: tuple[str, ...], message: str
) -> None:
    result = dqf(*arguments, cwd=Path(run.location).parents[1])
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_report_goes_into_the_runs_folder_and_a_figure_where_it_is_asked(run: TraceRun) -> None:
    cwd = Path(run.location).parents[1]
    done = dqf("report", "r", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "runs/r/report.html\n"
    assert "MB, opens offline" in done.stderr
    assert "text_encoder.layers.0.mlp" in (cwd / "runs/r/report.html").read_text()
    assert dqf("doctor", "r", cwd=cwd).returncode == 0
    drawn = dqf("plot", "r", "--figure", "ranking", "--out", "figures/a.svg",
                "--out", "figures/a.png", cwd=cwd)  # fmt: skip
    assert drawn.stdout == "figures/a.svg\nfigures/a.png\n"
    assert "scored against target" in drawn.stderr
    assert "layer 0 MLP" in (cwd / "figures/a.svg").read_text()
    listed = dqf("report", "--all", cwd=cwd)
    assert listed.stdout == "reports.html\n", listed.stderr
    assert 'href="runs/r/report.html"' in (cwd / "reports.html").read_text()


def test_usage_errors_end_with_two() -> None:
    assert dqf("rank").returncode == 2
    assert dqf("rank", "r", "--top", "0").returncode == 2


def test_the_doctor_finds_and_repairs(run: TraceRun) -> None:
    cwd = Path(run.location).parents[1]
    healthy = dqf("doctor", "r", "--format", "json", cwd=cwd)
    assert healthy.returncode == 0, healthy.stdout
    assert {row["state"] for row in json.loads(healthy.stdout)} <= {"ok", "note"}
    assert "checking: 3 of 3 parts" in healthy.stderr
    part = Path(run.location, "parts", "c00000001.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    damaged = dqf("doctor", "r", "--format", "csv", cwd=cwd)
    assert damaged.returncode == 1
    assert damaged.stdout.startswith("check,state,found,todo\nplan,ok,")
    assert "parts,wrong,parts/c00000001.parquet is not a whole" in damaged.stdout
    if orphans():
        pytest.skip("--repair would end processes that are not this test's")
    left = subprocess.Popen(
        ["ray::Left", "60"], executable="/bin/sleep", env={**os.environ, DRIVER_VARIABLE: "1:0"}
    )
    repaired = dqf("doctor", "r", "--repair", cwd=cwd)
    assert repaired.returncode == 0, repaired.stdout
    assert left.wait(10) < 0
    assert "c00000001.parquet was moved to quarantine/" in repaired.stderr
    assert "r` makes missing units again" in repaired.stderr
    assert "4 scored, 0 failed, 2 left" in repaired.stdout


def test_the_doctor_moves_nothing_while_the_plan_is_wrong(run: TraceRun) -> None:
    cwd = Path(run.location).parents[1]
    plan = Path(run.location, "plan.json")
    plan.write_text(plan.read_text().replace("a cat", "a black cat"))
    if orphans():
        pytest.skip("--repair would end processes that are not this test's")
    result = dqf("doctor", "r", "--repair", cwd=cwd)
    assert result.returncode == 1
    assert "nothing was moved" in result.stderr
    assert "was edited" in result.stdout
    assert len(list(Path(run.location, "parts").iterdir())) == 4


def test_formats(run: TraceRun) -> None:
    cwd = Path(run.location).parents[1]
    rows = json.loads(dqf("rank", "r", "--top", "1", "--format", "json", cwd=cwd).stdout)
    assert [(row["attribute"], row["rank"]) for row in rows] == [("object", 1), ("style", 1)]
    assert dqf("query", "r", "SELECT 1 AS a", "--format", "csv", cwd=cwd).stdout == "a\n1\n"
    assert "text_encoder.layers.0.mlp" in dqf("rank", "r", cwd=cwd).stdout
    (status,) = json.loads(dqf("trace", "status", "r", "--format", "json", cwd=cwd).stdout)
    plan = ("trace", "plan", "--part", "denoiser", "--no-calibrate", "--format", "json")
    (cost,) = json.loads(dqf(*plan, "--window", "each", "--kind", "resnet", cwd=cwd).stdout)
    assert cost["patched_runs"] == 72 * 20 * (8 + 1)  # and all text entries together
    blocks = json.loads(dqf("components", "emoji-sd", "--kind", "block", "--format", "json").stdout)
    assert (blocks[3]["component"], blocks[3]["shape"]) == ("unet.up_blocks.0", "128 x 8 x 8")
    assert status["run"] == run.location
    assert [status[name] for name in ("state", "done", "failed", "left")] == ["finished", 6, 0, 0]
    assert [row["attribute"] for row in status["leading"]] == ["object", "style"]
    (listed,) = json.loads(dqf("trace", "list", "--format", "json", cwd=cwd).stdout)
    assert (listed["run"], listed["state"]) == (run.location, "finished")
