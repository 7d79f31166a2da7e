"""Values that Python does not have print as SQL prints them, and settings are not told."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.query.select import open_query, run_query
from jobs.runs.trace_run import TraceRun
from schemas.errors import QueryRefused
from tests.cli.test_commands import dqf
from tests.made_up.small_run import make_run

VALUES = {
    "DATE '20000-01-01'": "20000-01-01",
    "DATE '0044-03-15 (BC)'": "0044-03-15 (BC)",
    "DATE 'infinity'": "infinity",
    "TIME '24:00:00'": "24:00:00",
    "BLOB '\\xAA\\x00abc'": "\\xAA\\x00abc",
    "'0101'::BIT": "0101",
    "TIMESTAMP '294247-01-10 04:00:54'": "294247-01-10 04:00:54",
    "INTERVAL '1 month 2 days'": "1 month 2 days",
    f"{2**128 - 1}::UHUGEINT": str(2**128 - 1),
    "[DATE '20000-01-01']": "[20000-01-01]",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return make_run(tmp_path_factory.mktemp("work") / "runs" / "r")


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
def test_values_print_as_sql_prints_them(form: str, run: TraceRun, tmp_path: Path) -> None:
    cwd = Path(run.location).parents[1]
    columns = ", ".join(f"{value} AS c{n}" for n, value in enumerate(VALUES))
    out = str(tmp_path / "out")
    sql = f"SELECT {columns}"
    done = dqf("query", "r", sql, "--format", form, "--out", out, cwd=cwd)
    assert done.returncode == 0, done.stderr
    if form == "json":
        assert list(json.loads(Path(out).read_text())[0].values()) == list(VALUES.values())
    elif form == "csv":
        assert Path(out).read_text().splitlines()[1] == ",".join(VALUES.values())


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "markdown"])
def test_decimals_keep_their_digits(form: str, run: TraceRun, tmp_path: Path) -> None:
    values = {
        "0.123456789012345678901234567891::DECIMAL(38,30)": "0.123456789012345678901234567891",
        "12345678901234567890.5": "12345678901234567890.5",
        "1.10": "1.10",
        "0::DECIMAL(38,30)": f"0.{'0' * 30}",
        "-3::DECIMAL(5,0)": "-3",
        "170141183460469231731687303715884105727": "170141183460469231731687303715884105727",
        "[0.10, 12345678901234567890.1]": "[0.10, 12345678901234567890.10]",
        "{'a': 1e0, 'b': 1.00}": None,
    }
    columns = ", ".join(f"{value} AS c{n}" for n, value in enumerate(values))
    out = tmp_path / "out"
    sql = f"SELECT {columns} UNION ALL SELECT {'NULL, ' * len(values)}"
    cwd = Path(run.location).parents[1]
    done = dqf("query", "r", sql, "--format", form, "--out", str(out), cwd=cwd)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    for value in filter(None, values.values()):
        assert re.sub(r"\s", "", value) in re.sub(r"\s", "", text), value
    if form.startswith("json"):
        rows = json.loads(text if form == "json" else f"[{','.join(text.splitlines())}]")
        assert [type(rows[0][f"c{n}"]) for n in range(5)] == [float, float, float, float, int]
        assert rows[0]["c7"] == {"a": 1.0, "b": 1.0}
        assert set(rows[1].values()) == {None}


def test_parquet_keeps_the_types_that_it_has(run: TraceRun, tmp_path: Path) -> None:
    cwd, out = Path(run.location).parents[1], str(tmp_path / "a.parquet")
    with pytest.raises(QueryRefused, match="column a is a UHUGEINT"):
        run_query(run, f"SELECT {2**128 - 1}::UHUGEINT AS a")
    for sql, code in (("SELECT DATE '20000-01-01' AS a", 0), ("SELECT INTERVAL 1 MONTH AS a", 2)):
        done = dqf("query", "r", sql, "--out", out, cwd=cwd)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert str(pq.read_schema(out).field("a").type) == "date32[day]"


def test_the_order_of_rows_stays(run: TraceRun) -> None:
    sql = "SELECT DATE '2000-01-01' + range::INTEGER AS day FROM range(50000) ORDER BY day DESC"
    with open_query({"r": run}, sql, as_text=True) as result:
        days = [day for batch in result.batches for day in batch["day"].to_pylist()]
    assert days == sorted(days, key=str, reverse=True)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM pg_settings",
        "SELECT * FROM pg_catalog.pg_settings",
        "SELECT current_setting('temp_directory')",
        "SELECT CURRENT_SETTING('allowed_paths')",
        "SELECT * FROM duckdb_settings()",
        "PIVOT pg_settings ON name USING first(setting)",
        "WITH s AS (FROM pg_settings) FROM s",
    ],
)
def test_settings_are_not_shown(sql: str, run: TraceRun) -> None:
    with pytest.raises(QueryRefused), open_query({"r": run}, sql):
        pass


def test_views_are_described(run: TraceRun) -> None:
    sql = "SELECT count(*) AS n FROM information_schema.tables"
    with open_query({"r": run}, sql) as result:
        assert int(next(result.batches)["n"].to_pylist()[0] or 0) > 0


def test_a_hundred_thousand_equal_names_take_no_minutes() -> None:
    from jobs.query.opened import _unique

    names = _unique(["a"] * 100_000)
    assert len(set(names)) == 100_000
    assert _unique(["a", "a_2", "a", "b"]) == ["a", "a_2", "a_3", "b"]
