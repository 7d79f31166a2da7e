"""The gate lets nothing through but one SELECT over views: hostile statements, one by one."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from jobs.query import gate
from jobs.query.catalog import write_catalog
from jobs.query.opened import Views, connected
from jobs.query.select import run_query
from jobs.query.views import read_first
from jobs.runs.trace_run import TraceRun
from schemas.errors import QueryRefused
from tests.made_up.small_run import commit_scores, make_run

SECRET = "the canary's secret"

WRITES = (
    "INSERT INTO captions VALUES ('x')",
    "UPDATE scores SET clean = 1",
    "DELETE FROM scores",
    "MERGE INTO scores USING captions USING (caption_id) WHEN MATCHED THEN DELETE",
    "CREATE TABLE t (a INTEGER)",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW ranking AS SELECT 1",
    "CREATE MACRO m(a) AS a + 1",
    "CREATE SEQUENCE s",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "DROP VIEW ranking",
    "DROP SCHEMA run CASCADE",
    "ALTER VIEW ranking RENAME TO other",
    "COMMENT ON VIEW ranking IS 'x'",
    "COPY (SELECT 1) TO '{canary}/evil.parquet'",
    "COPY (SELECT 1) TO '{part}' (USE_TMP_FILE false)",
    "COPY scores FROM '{canary}/secret.csv'",
    "COPY FROM DATABASE memory TO temp",
    "EXPORT DATABASE '{canary}/all'",
    "IMPORT DATABASE '{canary}'",
    "EXPLAIN COPY (SELECT 1) TO '{canary}/evil.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{part}' (USE_TMP_FILE false)",
    "EXPLAIN ANALYZE INSERT INTO captions VALUES ('x')",
    "EXPLAIN (FORMAT json) COPY (SELECT 1) TO '{canary}/evil.csv'",
    "EXPLAIN /**/ ANALYZE COPY (SELECT 1) TO '{part}' (USE_TMP_FILE false)",
    "EXPLAIN ANALYZE WITH w AS (COPY (SELECT 1) TO '{part}' (USE_TMP_FILE false)) FROM w",
    "EXPLAIN ANALYZE SELECT 1; DROP VIEW ranking",
    "EXPLAIN ANALYZE FROM read_text('{canary}/secret.csv')",
    "EXPLAIN PIVOT captions ON attribute USING count(*)",
    # To DuckDB 2.0 these are SELECTs.
    "WITH w AS (COPY (SELECT 1) TO '{part}' (USE_TMP_FILE false)) SELECT * FROM w",
    "WITH w AS (COPY (SELECT 1) TO '{canary}/evil.csv') FROM w",
    "WITH w AS (INSERT INTO dqf_0.scores SELECT * FROM scores RETURNING 1) FROM w",
    "WITH w AS (DELETE FROM dqf_0.scores RETURNING 1) SELECT count(*) FROM w",
    "WITH w AS (UPDATE dqf_0.scores SET clean = 1 RETURNING 1) SELECT count(*) FROM w",
    "WITH a AS (SELECT 1), w AS (cOpY/**/(SELECT 1)TO'{part}'(use_tmp_file 0)) SELECT 1 FROM a, w",
    "SELECT 1 UNION ALL (WITH w AS (COPY (SELECT 1) TO '{part}') SELECT 2)",
    # And these are a PIVOT, which has no tree.
    "WITH w AS (COPY (SELECT 1 a) TO '{part}' (USE_TMP_FILE false)) PIVOT w ON a USING count(*)",
    "COPY (PIVOT captions ON attribute USING count(*)) TO '{canary}/evil.csv'",
    "CREATE TABLE t AS PIVOT captions ON attribute USING count(*)",
    "PIVOT read_text('{canary}/secret.csv') ON content USING count(*)",
    "PIVOT (FROM \"read_csv\" ('{canary}/secret.csv')) ON a USING count(*)",
    "PIVOT '{canary}/secret.csv' ON a USING count(*)",
)

STATEMENTS = (
    "",
    "   ;  ",
    "-- only a comment",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW ranking",
    "SELECT ';' /* ; */; -- ;\nDROP VIEW ranking",
    "SELECT $$;$$; DELETE FROM scores; SELECT 'x",
    "SELEKT 1",
    "SELECT * FROM nowhere",
    "ATTACH '{canary}/new.duckdb'",
    "ATTACH '{run}/catalog.duckdb' AS c (READ_ONLY)",
    "DETACH memory",
    "USE main",
    "INSTALL httpfs",
    "FORCE INSTALL 'https://localhost/x.duckdb_extension'",
    "LOAD httpfs",
    "LOAD '{canary}/x.duckdb_extension'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET VARIABLE a = 1",
    "RESET allowed_paths",
    "RESET memory_limit",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CALL enable_logging()",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "BEGIN TRANSACTION",
    "ROLLBACK",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "DO $$ SELECT 1 $$",
    "GRANT ALL ON scores TO public",
)

READS = (
    "SELECT * FROM read_text('{canary}/secret.csv')",
    "SELECT * FROM read_blob('{canary}/secret.csv')",
    "SELECT * FROM read_csv('{canary}/secret.csv')",
    "SELECT * FROM read_csv_auto('{run}/parts/../../canary/secret.csv')",
    "SELECT * FROM read_json('{run}/plan.json')",
    "SELECT * FROM read_parquet('{run}/parts/link.parquet')",
    "SELECT * FROM read_parquet(['{part}', '{canary}/secret.csv'])",
    "SELECT * FROM parquet_scan('{part}')",
    "SELECT * FROM main.read_parquet('{part}')",
    "SELECT * FROM system.main.read_parquet('{part}')",
    "SELECT * FROM parquet_metadata('{run}/units.parquet')",
    "SELECT * FROM parquet_kv_metadata('{part}')",
    "SELECT * FROM read_duckdb('{run}/catalog.duckdb')",
    "SELECT * FROM sniff_csv('{canary}/secret.csv')",
    "SELECT * FROM glob('{canary}/*')",
    "SELECT * FROM '{canary}/secret.csv'",
    "SELECT * FROM '{part}'",
    'SELECT * FROM "{part}"',
    "FROM '{run}/../canary/secret.csv'",
    "FROM '{run}/parts/link.parquet'",
    "FROM '{part}', (WITH \"{part}\" AS (SELECT 1) SELECT 2)",
    "TABLE '{canary}/secret.csv'",
    "DESCRIBE '{canary}/secret.csv'",
    "SUMMARIZE '{part}'",
    "SELECT (SELECT max(content) FROM read_text('{canary}/secret.csv'))",
    "SELECT 1 WHERE EXISTS (FROM read_text('{canary}/secret.csv'))",
    "WITH w AS (FROM read_text('{canary}/secret.csv')) FROM w",
    "SELECT * FROM captions, LATERAL (FROM read_text('{canary}/secret.csv'))",
    "SELECT * FROM captions JOIN read_text('{canary}/secret.csv') ON true",
    "SELECT * FROM query('SELECT * FROM ''{canary}/secret.csv''')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{canary}/evil.csv''')",
    "SELECT * FROM query_table('{part}')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM ''{canary}/secret.csv'''))",
    "SELECT * FROM 'http://127.0.0.1:9/x.parquet'",
    "SELECT * FROM read_parquet('https://127.0.0.1:9/x.parquet')",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    "SELECT * FROM '/dev/stdin'",
    "SELECT getenv('HOME')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('s3://bucket', 's3')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM duckdb_logs()",
    "SELECT write_log('x')",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM enable_profiling()",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM truncate_duckdb_logs()",
    "SELECT * FROM add_grammar_extension('x')",
    "SELECT * FROM create_external_resource('x')",
    "SELECT * FROM python_map_function()",
    "SELECT * FROM rows",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, a secret beside it, and a link out of the run."""
    folder = tmp_path_factory.mktemp("it's a gate")
    run = make_run(folder / "run")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    write_catalog(run)
    (folder / "canary").mkdir()
    secret = folder / "canary" / "secret.csv"
    secret.write_text(f"a\n{SECRET}\n")
    (folder / "run/parts/link.parquet").symlink_to(secret)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> TraceRun:
    return make_run(folder / "run")


@pytest.fixture(scope="module")
def views(run: TraceRun) -> Iterator[Views]:
    """Yield a connection that takes one statement after another, as that of a shell does."""
    with connected({"run": run}, read_first) as views:
        yield views


def contents(folder: Path) -> dict[str, str]:
    """Return a hash of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def filled(sql: str, folder: Path) -> str:
    """Return a hostile statement with its paths, escaped for where they stand."""
    places = {
        "run": folder / "run",
        "canary": folder / "canary",
        "part": folder / "run/parts/c00000000.parquet",
    }
    return sql.format(**{name: str(path).replace("'", "''") for name, path in places.items()})


@pytest.mark.parametrize("sql", [*WRITES, *STATEMENTS, *READS])
def test_hostile_statements_are_refused(
    views: Views, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(folder)
    with pytest.raises(QueryRefused) as refused:
        list(views.stream(filled(sql, folder)).batches)
    assert SECRET not in str(refused.value)
    assert refused.value.exit_code == 2
    assert contents(folder) == before
    assert not list(tmp_path.iterdir())


def test_the_gate_is_needed(folder: Path, tmp_path: Path) -> None:
    """DuckDB's own lock lets a SELECT overwrite what it may read."""
    part = tmp_path / "part.parquet"
    part.write_bytes(b"precious")
    with duckdb.connect() as connection:
        gate.lock(connection, [str(part)])
        sql = f"WITH w AS (COPY (SELECT 1) TO '{part}' (USE_TMP_FILE false)) SELECT * FROM w"
        (statement,) = connection.extract_statements(sql)
        assert statement.type == duckdb.StatementType.SELECT
        connection.execute(statement)
    assert part.read_bytes() != b"precious"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM trials",
        "FROM ranking",
        "TABLE captions",
        "VALUES (1, 'COPY t TO ''x''')",
        "SELECT 1; -- a comment; behind",
        "WITH a AS (SELECT 1 AS x), b AS (FROM a) SELECT * FROM b",
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 9) FROM r",
        "SELECT * FROM captions UNION BY NAME SELECT * FROM captions",
        "SELECT attribute, list(caption) FROM captions GROUP BY ALL ORDER BY ALL",
        "SELECT * FROM slabs, unnest(components) AS t(name)",
        "SELECT * FROM range(3)",
        "SELECT random() < 2",
        "DESCRIBE ranking",
        "SUMMARIZE scores",
        "SHOW TABLES",
        "PIVOT captions ON attribute USING count(*)",
        "PIVOT captions ON attribute IN ('object') USING count(*)",
        "WITH t AS (FROM trials) PIVOT t ON seed USING avg(patched) GROUP BY component",
        "UNPIVOT (SELECT clean, corrupted FROM scores) ON clean, corrupted",
        "SELECT * FROM run.scores SEMI JOIN run.captions USING (caption_id)",
        "SELECT column_name FROM information_schema.columns",
        'SELECT \'delete\' AS "copy", count(*) AS "insert" FROM captions',
    ],
)
def test_what_reads_is_allowed(views: Views, sql: str) -> None:
    assert views.query(sql).num_rows


INJECTED = "'; DROP VIEW ranking"


def test_parameters_are_values(run: TraceRun) -> None:
    found = run_query(run, "SELECT $x AS a, $y IS NULL AS b", {"x": INJECTED, "y": None})
    assert found.to_pylist() == [{"a": INJECTED, "b": True}]


def test_a_statement_too_deep_to_look_through_is_refused(run: TraceRun) -> None:
    with pytest.raises(QueryRefused):
        run_query(run, "SELECT " + "(" * 3000 + "1" + ")" * 3000)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE r AS (SELECT range AS i FROM range(1000000) UNION ALL SELECT i + 1 FROM r) "
        "SELECT list(i) FROM r",
        "SELECT list(range) FROM range(1000000000)",
        "SELECT * FROM range(100000000) ORDER BY hash(range)",
    ],
)
def test_a_query_that_fills_memory_and_disk_ends(
    run: TraceRun, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.setattr(gate, "MEMORY", "64MB")
    monkeypatch.setattr(gate, "DISK_SHARE", 0)
    with pytest.raises(QueryRefused, match="more than half of the memory"):
        run_query(run, sql)


def test_a_statement_of_any_length_is_refused_at_once(views: Views) -> None:
    for sql in ("SELECT " + "1," * gate.MOST_SQL + "1", "-" * 2 * gate.MOST_SQL + "\nSELECT 1"):
        with pytest.raises(QueryRefused, match="the statement has 16 MiB, at most 8 are read"):
            views.query(sql)
