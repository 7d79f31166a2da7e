"""Values that Python does not have print as SQL prints them, and settings are not told."""

import csv
import json
import re
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from jobs.query.select import open_query
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


TEXTS = (":smile:", "[red]a[/red]", "a\rb", "c\r\nd", "e\nf", 'g"h', "i,j", " k ", "\\")


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown", "parquet"])
def test_text_is_the_text_that_was_selected(form: str, run: TraceRun, tmp_path: Path) -> None:
    cwd, out = Path(run.location).parents[1], tmp_path / "out"
    columns = ", ".join(f"decode('{quoted(text)}'::BLOB) AS c{n}" for n, text in enumerate(TEXTS))
    done = dqf("query", "r", f"SELECT {columns}", "--format", form, "--out", str(out), cwd=cwd)
    assert done.returncode == 0, done.stderr
    if form == "parquet":
        assert tuple(pq.read_table(out).to_pylist()[0].values()) == TEXTS
    elif form == "csv":
        with out.open(newline="") as file:
            assert tuple([*csv.reader(file)][1]) == TEXTS
    elif form == "json":
        assert tuple(json.loads(out.read_text())[0].values()) == TEXTS
    else:
        assert all(text in out.read_text() for text in TEXTS[:2])


def quoted(text: str) -> str:
    return "".join(f"\\x{byte:02X}" for byte in text.encode())


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
def test_columns_of_one_name_print_as_others(form: str, run: TraceRun, tmp_path: Path) -> None:
    cwd, out = Path(run.location).parents[1], tmp_path / "out"
    sql = "SELECT DATE '20000-01-01' AS a, 1 AS a, '\\xAA'::BLOB AS A, '1.5'::VARIANT AS b"
    done = dqf("query", "r", sql, "--format", form, "--out", str(out), cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert re.search(r"20000-01-01\W+(a_2\W+)?1\W+(A\W+)?xAA\W+(b\W+)?1\.5", out.read_text())


@pytest.mark.parametrize("value", ["MAP {'a': 'nan'::DOUBLE}", "['inf'::FLOAT]", "{'a': 1 / 0.0}"])
def test_json_has_no_number_that_json_lacks(value: str, run: TraceRun) -> None:
    cwd = Path(run.location).parents[1]
    done = dqf("query", "r", f"SELECT {value} AS a", "--format", "json", cwd=cwd)
    assert "null" in done.stdout, done.stderr
    json.loads(done.stdout, parse_constant=pytest.fail)


def test_parquet_keeps_the_types_that_it_has(run: TraceRun, tmp_path: Path) -> None:
    cwd, out = Path(run.location).parents[1], str(tmp_path / "a.parquet")
    for value in ("DATE '20000-01-01'", "'BIT'::ENUM('BIT')", f"{10**38 - 1}::HUGEINT"):
        done = dqf("query", "r", f"SELECT {value} AS a", "--out", out, cwd=cwd)
        assert done.returncode == 0, done.stderr
        with duckdb.connect() as connection:
            read = connection.sql(f"SELECT a = {value} FROM '{out}'").fetchall()
        assert read == [(True,)]


@pytest.mark.parametrize(
    "value",
    [
        "INTERVAL 1 MONTH", f"{2**127 - 1}::HUGEINT", f"{2**128 - 1}::UHUGEINT", "MAP {}",
        "'010'::BIT", "['010'::BIT]", "'1'::BIGNUM", "{'a': '1.5'::VARIANT}",
        "TIMETZ '12:00:00+02'", "union_value(k := 1)",
    ],
)  # fmt: skip
def test_parquet_holds_no_other_value(value: str, run: TraceRun, tmp_path: Path) -> None:
    cwd, out = Path(run.location).parents[1], tmp_path / "a.parquet"
    done = dqf("query", "r", f"SELECT {value} AS a", "--out", str(out), cwd=cwd)
    *_, sentence = done.stderr.splitlines()
    assert done.returncode == 2
    assert "Parquet lacks" in sentence
    assert "CAST it" in sentence
    assert not out.exists()


def test_csv_has_a_null_and_the_value_of_a_union(run: TraceRun) -> None:
    sql = "SELECT NULL::STRUCT(a INTEGER), union_value(k := 'x'), union_value(k := [1]), 1"
    done = dqf("query", "r", sql, "--format", "csv", cwd=Path(run.location).parents[1])
    assert done.stdout.splitlines()[1] == ",x,[1],1"


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
        "WITH pg_settings AS (SELECT 1 AS a) FROM pg_catalog.pg_settings",
        "WITH pg_settings AS (FROM pg_settings) FROM pg_settings",
        "WITH RECURSIVE pg_settings AS (FROM pg_settings UNION FROM pg_settings) FROM pg_settings",
        "WITH a AS (FROM pg_settings), pg_settings AS (SELECT 1 AS a) FROM a",
        "FROM (WITH pg_settings AS (SELECT 1 AS a) FROM pg_settings), pg_settings",
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
