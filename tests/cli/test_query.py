"""`dqf query` as users meet it: where statements come from, and where results go."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.test_commands import dqf
from tests.made_up.evaluation_rows import Drawn, make_evaluation
from tests.made_up.small_run import commit_scores, make_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory with two runs."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("r", "other-run"):
        run = make_run(folder / "runs" / name)
        for chunk in range(run.num_chunks):
            commit_scores(run, chunk)
    return folder


def in_a_process(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, for what needs real pipes."""
    command = [sys.executable, "-m", "dqf", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environment, input=stdin.encode(), capture_output=True, check=False
    )


def test_statements_come_from_words_options_and_files(runs: Path) -> None:
    (runs / "count.sql").write_text("-- how many?\nSELECT count(*) AS n FROM scores;\n")
    for given in (("SELECT count(*) AS n FROM scores",), ("-f", "count.sql")):
        assert dqf("query", "r", *given, "--format", "csv", cwd=runs).stdout == "n\n24\n"
    assert dqf("query", "r", "-c", "VALUES (1)", "--format", "jsonl", cwd=runs).stdout == (
        '{"col0": 1}\n'
    )
    assert dqf("query", "r", "-f", "none.sql", cwd=runs).returncode == 2


def test_a_statement_comes_from_stdin_and_parquet_goes_down_a_pipe(runs: Path) -> None:
    sql = "SELECT * FROM captions"
    done = in_a_process("query", "r", "--format", "parquet", cwd=runs, stdin=sql)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == 3
    nothing = in_a_process("query", "r", cwd=runs)
    assert nothing.returncode == 2
    assert b"one SELECT statement, not nothing" in nothing.stderr


def test_captions_are_filtered_in_every_run_and_the_filter_is_said(runs: Path) -> None:
    """The total effect is 0.005 by one seed and 0.2 by the other."""
    sql = 'SELECT (SELECT count(*) FROM r.scores), (SELECT count(*) FROM "other-run".scores)'
    for given, rows in (
        (("--min-te", "0.1"), 24),
        (("--min-te", "0.11"), 0),
        (("--known", "target:0.3", "--min-te", "0.1"), 24),
        (("--known", "caption:0.31"), 0),
    ):
        done = dqf("query", "r", "other-run", sql, *given, "--format", "csv", cwd=runs)
        assert done.stdout.splitlines()[1] == f"{rows},{rows}"
        assert "other-run: only captions with a" in done.stderr
    assert "read are" not in dqf("query", "r", "SELECT 1", cwd=runs).stderr
    refused = dqf("query", "r", "SELECT 1", "--known", "lips:0.2", cwd=runs)
    assert (refused.returncode, "'lips', which was not traced" in refused.stderr) == (2, True)


def test_several_runs_are_schemas_of_their_names(runs: Path) -> None:
    sql = 'SELECT count(*) AS n FROM captions JOIN "other-run".captions USING (caption_id)'
    assert dqf("query", "r", "other-run", sql, "--format", "csv", cwd=runs).stdout == "n\n3\n"
    sql = "SELECT count(*) AS n FROM r.scores ANTI JOIN b.scores USING (unit_id)"
    named = dqf("query", "r", "b=runs/other-run", sql, "--format", "csv", cwd=runs)
    assert named.stdout == "n\n0\n"
    rows = dqf("query", "r", "other-run", "--example", "compare-runs", "--format", "json", cwd=runs)
    assert {row["difference"] for row in json.loads(rows.stdout)} == {0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a run"),
        (("r", "r", "SELECT 1"), "two runs are called 'r': call one of them NAME=RUN"),
        (("R=r", "r", "SELECT 1"), "two runs are called 'r'"),
        (("main=r", "SELECT 1"), "a 'main' of its own"),
        (("r", "-c", ""), "one SELECT statement, not nothing"),
        (("r", "SELECT 1", "--out", "runs/../runs/r/units.csv"), "in a run's folder"),
        (("r", "nowhere", "SELECT 1"), "no run at runs/nowhere"),
        (("r", "-c", "SELECT 1", "--example", "kinds"), "one of --command, --file and --example"),
        (("r", "--example", "nothing"), "no example 'nothing': there are top-components"),
        (("r", "--example", "compare-runs"), "compares two runs"),
        (("--schema", "nothing"), "no view 'nothing'"),
        (("r", "SELECT 1", "--out", "o.xlsx"), "end its name with .json, .jsonl, .csv"),
        (("--schema", "--out", "views"), "--out views says no format"),
        (("r", "SELECT 1", "--out", "no/where.csv"), "there is no folder no"),
        (("r", "SELECT 1", "--out", "runs/r/plan.json"), "in a run's folder"),
        (("r", "SELECT 1 FROM rankings"), "no view 'rankings'"),
        (("r", "SELECT unit FROM units"), '"unit" not found'),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    runs: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = dqf("query", *arguments, cwd=runs)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert result.stdout == ""


ODD = """
SELECT 1 AS a, 'x|y
z' AS b, NULL AS c, [1, 2] AS d, 0.00012 AS e, 'nan'::DOUBLE AS f, sum(2::HUGEINT) AS a, true AS g
"""


def test_formats_of_odd_values(runs: Path) -> None:
    def printed(output_format: str) -> str:
        return dqf("query", "r", ODD, "--format", output_format, cwd=runs).stdout

    row = {"a": 1, "b": "x|y\nz", "c": None, "d": [1, 2], "e": 0.00012, "f": None, "a_2": 2}
    assert json.loads(printed("json")) == [{**row, "g": True}]
    assert json.loads(printed("jsonl")) == {**row, "g": True}
    names, values = csv.reader(io.StringIO(printed("csv")))
    assert names == [*row, "g"]
    assert values[:5] == ["1", "x|y\nz", "", "[1, 2]", "0.00012"]
    head, rule, line = printed("markdown").splitlines()
    assert head == "| a | b | c | d | e | f | a_2 | g |"
    assert rule.startswith("| ---: | --- |")
    assert line == r"| 1 | x\|y<br>z |  | [1, 2] | 0.00012 | nan | 2 | True |"
    assert "0.00012" in printed("table")
    assert dqf("query", "r", "SELECT 1 LIMIT 0", "--format", "json", cwd=runs).stdout == "[]\n"


def test_files_are_written_whole_in_the_format_of_their_name(runs: Path) -> None:
    for name in ("o.csv", "o.jsonl", "o.json", "o.md", "o.parquet", "o.txt"):
        done = dqf("query", "r", "FROM captions", "--out", name, cwd=runs)
        assert (done.stdout, done.stderr) == ("", f"3 rows in {name}\n")
    assert (runs / "o.csv").read_text().startswith("caption_id,caption,")
    assert (runs / "o.md").read_text().startswith("| caption_id |")
    assert len(json.loads((runs / "o.json").read_text())) == 3
    assert pq.read_table(runs / "o.parquet").num_rows == 3
    # An error at the last row leaves what was there, and nothing besides.
    before = sorted(runs.iterdir()), (runs / "o.csv").read_bytes()
    sql = "SELECT CASE WHEN range = 99999 THEN error('late') END AS e FROM range(100000)"
    late = dqf("query", "r", sql, "--out", "o.csv", cwd=runs)
    assert late.returncode == 2
    assert "late" in late.stderr
    assert (sorted(runs.iterdir()), (runs / "o.csv").read_bytes()) == before


def test_a_table_says_how_many_rows_there_are(runs: Path) -> None:
    few = dqf("query", "r", "FROM range(3)", cwd=runs)
    assert few.stderr == "3 rows\n"
    many = dqf("query", "r", "FROM range(10_050)", cwd=runs)
    assert "the first 10000 of 10050 rows are shown; other formats have all" in many.stderr
    assert "10050 rows" in many.stderr


def test_a_terminal_gets_what_fits(runs: Path) -> None:
    sql = "SELECT range, " + ", ".join(f"'{n}' AS a_long_name_{n}" for n in range(9))
    shown = on_a_terminal("query", "r", f"{sql} FROM range(300)", cwd=runs)
    assert "the first 100 of 300 rows are shown" in shown
    assert "columns that do not fit: a_long_name_" in shown
    table = re.sub(r"\x1b\[[0-9;]*m", "", shown).split("the first 100")[0]
    assert max(map(len, table.splitlines())) <= 80
    refused = on_a_terminal("query", "r", "SELECT 1", "--format", "parquet", cwd=runs)
    assert "a terminal cannot show Parquet" in refused


def test_a_file_or_a_pipe_gets_every_column_unbroken(runs: Path) -> None:
    names = [f"a_long_name_{n}" for n in range(40)]
    sql = "SELECT " + ", ".join(f"'{n} 猫 {'x' * 30} end' AS {n}" for n in names)
    done = dqf("query", "r", sql, cwd=runs)
    assert done.stderr == "1 row\n"
    dqf("query", "r", sql, "--out", "wide.txt", cwd=runs)
    for written in (done.stdout, (runs / "wide.txt").read_text()):
        head, row = (line for line in written.splitlines() if "a_long" in line)
        assert head.split() == names
        assert row.count("x" * 30 + " end") == len(names)


def on_a_terminal(*arguments: str, cwd: Path) -> str:
    """Return what the command shows on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dqf", *arguments],
        cwd=cwd, env=environment, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        shown += read
    process.wait()
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("output_format", ["csv", "jsonl", "parquet"])
def test_big_results_stream(runs: Path, output_format: str) -> None:
    """A reader that stops has had its rows, and most rows were never made."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sql = "SELECT range AS n, 'a text of some length ' || range AS s FROM range(1_000_000_000)"
    process = subprocess.Popen(
        [sys.executable, "-m", "dqf", "query", "r", sql, "--format", output_format],
        cwd=runs, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert isinstance(process.stdout, io.BufferedReader)
    assert process.stderr is not None
    read = 0
    while read < 2_000_000:
        read += len(process.stdout.read1(2**20))
    memory = psutil.Process(process.pid).memory_info().rss
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait(30) != 0
    assert memory < 500e6
    assert "Traceback" not in errors, errors


@pytest.mark.parametrize("delay_s", [0.0, 0.2])
def test_ctrl_c_ends_a_query(runs: Path, delay_s: float) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sql = "SELECT sum(a.range * b.range) FROM range(100_000_000) a, range(100_000_000) b"
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS_BEFORE_IT_WAITS, "query", "r", sql],
        cwd=runs, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == "computing\n"
        time.sleep(delay_s)
        process.send_signal(2)
        assert process.wait(60) in (1, 130)
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()


PRINTS_BEFORE_IT_WAITS = """
import sys
import jobs.query.opened
from cli.app import main

opened = jobs.query.opened.Views.stream

def announced(self, sql, *, as_text):
    print("computing", file=sys.stderr, flush=True)
    return opened(self, sql, as_text=as_text)

jobs.query.opened.Views.stream = announced
main()
"""


def test_documentation_and_examples_need_no_run(runs: Path) -> None:
    views = json.loads(dqf("query", "--schema", "--format", "json", cwd=runs).stdout)
    assert {"of", "view", "columns", "meaning"} == set(views[0])
    assert {view["of"] for view in views} == {"run", "evaluation", "attack"}
    rows = [
        row
        for view in views
        for row in json.loads(
            dqf("query", "--schema", view["view"], "--format", "json", cwd=runs).stdout
        )
    ]
    assert {"view", "column", "type", "unit", "meaning"} == set(rows[0])
    assert len(rows) == sum(view["columns"] for view in views)
    one = json.loads(dqf("query", "--schema", "captions", "--format", "json", cwd=runs).stdout)
    assert [row["column"] for row in one][:2] == ["caption_id", "caption"]
    names = json.loads(dqf("query", "--examples", "--format", "json", cwd=runs).stdout)
    assert {k: names[4][k] for k in ("name", "runs")} == {"name": "recovery", "runs": 1}
    shown = dqf("query", "r", "--example", "recovery", "--format", "csv", cwd=runs).stdout
    assert shown.startswith("attribute,part,measure,noise_sigmas,patch_kind,num_trials,q10,")


def test_schema_takes_a_run_before_its_views(runs: Path) -> None:
    words = ("--schema", "--format", "json")
    of_run = json.loads(dqf("query", "r", *words, cwd=runs).stdout)
    assert {row["of"] for row in of_run} == {"run"}
    assert "ranking" in {row["view"] for row in of_run}
    columns = json.loads(dqf("query", "r", "captions", *words, cwd=runs).stdout)
    assert columns == json.loads(dqf("query", "captions", *words, cwd=runs).stdout)


def test_every_command_has_every_format(runs: Path) -> None:
    for output_format, start in (("markdown", "| "), ("jsonl", "{"), ("csv", "attribute,")):
        shown = dqf("rank", "r", "--format", output_format, cwd=runs).stdout
        assert shown.startswith(start)
    done = in_a_process("models", "--format", "parquet", cwd=runs)
    assert isinstance(pq.read_table(io.BytesIO(done.stdout)), pa.Table)


def test_an_evaluation_is_queried_by_its_folder(tmp_path: Path) -> None:
    drawn = [Drawn(name="cat", images=4, before=4, after=1)]
    make_evaluation(tmp_path / "edits" / "e" / "evaluation", drawn)
    place = "edits/e/evaluation"
    shown = dqf(
        "query", place, "--example", "concepts-that-survive", "--format", "csv", cwd=tmp_path
    )
    assert shown.stdout.splitlines()[1].startswith("edit,cat,object,0.25,1,4,")
    named = dqf("query", f"mine={place}", "SELECT count(*) AS n FROM mine.images", cwd=tmp_path)
    assert "4" in named.stdout
    refused = dqf("query", place, "FROM images", "--known", "target:0.2", cwd=tmp_path)
    assert refused.returncode == 2
    assert "choose captions of a trace, and " in refused.stderr
    assert f"{place} is an evaluation: leave them out" in refused.stderr
    other = dqf("query", place, "--example", "top-components", cwd=tmp_path)
    assert "is of kind run, and evaluation of kind evaluation" in other.stderr
