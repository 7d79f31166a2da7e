"""The tables that a statement reads, as DuckDB parses it: no literal and no comment counts."""

import duckdb
import pytest

from jobs.query.statement import parsed, tables_read
from schemas.views import STATISTICS_VIEWS


def reads_estimates(sql: str) -> bool:
    with duckdb.connect() as connection:
        return not set(tables_read(parsed(connection, sql))).isdisjoint(STATISTICS_VIEWS)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'ranking' AS a FROM scores",
        "SELECT count(*) AS ranking FROM scores -- FROM ranking",
        "SELECT count(*) /* FROM ranking */ FROM scores",
        'SELECT count(*) AS "causal_states" FROM scores',
        "WITH ranking AS (SELECT clean FROM scores) SELECT * FROM ranking",
        "WITH Overlap AS (FROM scores), b AS (FROM OVERLAP) SELECT count(*) FROM b",
        "WITH RECURSIVE ranking AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM ranking WHERE n < 3) "
        "FROM ranking",
        "SELECT count(*) FROM (WITH ranking AS (FROM scores) SELECT (FROM ranking))",
        "SELECT ranking.clean FROM scores AS ranking",
        "SELECT count(*) FROM scores WHERE component IN ('overlap', 'concentration')",
    ],
)
def test_words_that_are_no_table_are_not_read(sql: str) -> None:
    assert not reads_estimates(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM ranking",
        'SELECT count(*) FROM "RANKING"',
        "SELECT count(*) FROM Component_Effects",
        "SELECT count(*) FROM run.ranking",
        "SELECT (SELECT max(mean_ie) FROM ranking) FROM scores",
        "SELECT count(*) FROM scores SEMI JOIN ranking USING (component)",
        "WITH ranking AS (FROM scores), b AS (FROM run.ranking) FROM b",
        "WITH ranking AS (FROM ranking) SELECT count(*) FROM ranking",
        "WITH a AS (WITH ranking AS (FROM scores) FROM ranking) SELECT * FROM a, ranking LIMIT 1",
        "SELECT count(*) FROM scores UNION ALL SELECT count(*) FROM causal_states",
        "SELECT count(*) FROM 'ranking'",
    ],
)
def test_tables_are_read_wherever_they_stand(sql: str) -> None:
    assert reads_estimates(sql)
