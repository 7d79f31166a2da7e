"""The gate for users' SQL: exactly one SELECT over views; no file, no setting, nothing written.

DuckDB alone is not enough: to it `WITH w AS (COPY ... TO 'part') SELECT ...` is a SELECT, and a
path that may be read may be written too (2.0.1). So the statement's tree is checked before it
runs, and anything that is not known to be harmless is refused.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import duckdb

from jobs.query.statement import nodes_of, parsed, tables_read, words_of
from schemas.documents import check_size
from schemas.errors import QueryRefused, StatementRefused
from schemas.views import STATISTICS_VIEWS, exactly, quoted

MEMORY = "50%"
"""Share of the machine's or container's memory that a query may use before it spills."""
DISK_SHARE = 0.5
"""Share of the temporary folder's free space that a query may fill by spilling."""

MOST_SQL = 8 * 2**20
"""Characters of the longest statement, whose tree takes a minute and gigabytes; one of 100,000
columns has a fifth of them."""

TABLE_FUNCTIONS = {
    *("range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree"),
    *("histogram", "histogram_values", "duckdb_columns", "duckdb_views", "duckdb_functions"),
}
"""Table functions that read only their arguments, or the views' names."""
NAMING = {"histogram", "histogram_values"}
"""Those among them whose first argument is, or becomes, the name of any view."""
DESCRIBING = TABLE_FUNCTIONS | {
    *("duckdb_tables", "duckdb_schemas", "duckdb_types", "duckdb_constraints", "duckdb_indexes"),
    *("duckdb_databases", "duckdb_sequences", "duckdb_keywords"),
}
"""Functions that DuckDB's own views may call: they describe the views and SQL, no setting."""
SIDE_EFFECTS = {"write_log", "getenv", "nextval", "setval", "current_setting"}
"""Scalar functions that act on or read more than their arguments."""
READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""Kinds of query in DuckDB's tree that only read; others are INSERT, UPDATE, DELETE and COPY."""
WRITING_WORDS = {"insert", "update", "delete", "copy", "merge"}
FIRST_WORDS = {"pivot", "pivot_wider", "from", "select", "with", "summarize", "describe"}

FILE_MARKS = frozenset("./\\*?[")
"""Characters by which DuckDB takes a table's name for that of a file."""
CALLED = re.compile(r"\b((?:duckdb|pragma)_\w+)\s*\(")
"""Pattern of the DuckDB functions that the text of a view calls."""
EXPLAIN = re.compile(r"\s*EXPLAIN(\s+ANALYZE)?\s", re.IGNORECASE)
"""Pattern of the words before a statement whose plan is asked for."""
MULTI = "MULTI"
"""DuckDB's type of a PIVOT whose columns depend on the data, which has no tree."""


def connect(temporary: str) -> duckdb.DuckDBPyConnection:
    """Return a connection in memory that spills into the folder `temporary`, within limits."""
    spill_mib = max(1, int(shutil.disk_usage(temporary).free * DISK_SHARE) // 2**20)
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
            "memory_limit": MEMORY,
            "temp_directory": temporary,
            "max_temp_directory_size": f"{spill_mib}MiB",
        }
    )


def lock(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Restrict the connection to reading `paths`; the order of the settings matters."""
    # A path that looks like a pattern is read as one that matches it alone.
    listed = ", ".join(map(quoted, dict.fromkeys([*paths, *map(exactly, paths)])))
    connection.execute(f"SET allowed_paths = [{listed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A statement that may run."""

    sql: str
    reads: frozenset[str]
    """Names, in lower case, among which are those of all views that it reads."""


def admitted(connection: duckdb.DuckDBPyConnection, sql: str) -> Admitted:
    """Return the one SELECT of `sql`; the connection already has its views.

    It may stand after EXPLAIN or EXPLAIN ANALYZE.

    QueryRefused: it is longer than MOST_SQL, does not parse, is none or several, or does anything
    but read views.
    """
    check_size(sql, "the statement", most=MOST_SQL, error=QueryRefused)
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise StatementRefused(str(error).strip()) from error
    if len(statements) != 1:
        raise _refused(f"{len(statements)} statements" if statements else "nothing")
    (statement,) = statements
    if statement.type == duckdb.StatementType.EXPLAIN and (
        explain := EXPLAIN.match(statement.query)
    ):
        # ANALYZE runs the statement, which must read as any other.
        explained = admitted(connection, statement.query[explain.end() :])
        return Admitted(sql=statement.query, reads=explained.reads)
    if statement.type.name == MULTI:
        reads = _check_words(connection, statement.query)
    elif statement.type != duckdb.StatementType.SELECT:
        raise _refused(statement.type.name.replace("_", " "))
    else:
        reads = _check_tree(connection, statement.query)
    return Admitted(sql=statement.query, reads=reads)


def _refused(found: str) -> QueryRefused:
    return QueryRefused(f"give exactly one SELECT statement, not {found}: runs are read-only")


def _check_tree(connection: duckdb.DuckDBPyConnection, sql: str) -> frozenset[str]:
    """Return the names of the tables that a statement reads.

    QueryRefused: a part of it may do more than read views.
    """
    tree = parsed(connection, sql)
    tables, reads = _tables(connection), set(tables_read(tree))
    unknown = reads - tables
    for node in nodes_of(tree):
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in READING_NODES:
            raise _refused(f"{kind.split('_')[0]} inside WITH")
        if kind == "TABLE_FUNCTION":
            if (name := node["function"]["function_name"].lower()) not in TABLE_FUNCTIONS:
                raise _no_function(name)
            reads.update(STATISTICS_VIEWS if name in NAMING else ())
        elif kind == "FUNCTION" and node["function_name"].lower() in SIDE_EFFECTS:
            raise _no_function(node["function_name"])
        elif kind == "BASE_TABLE":
            name = node["qualified_name"]["path"][-1].lower()
            # A clause of WITH may not have the name of a file either.
            if name in unknown or (name not in tables and FILE_MARKS.intersection(name)):
                raise _no_view(connection, node["qualified_name"]["path"])
    return frozenset(reads)


def _tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the names of views and tables that may be read, in lower case.

    They include DuckDB's own views that call only describing functions: `pg_settings` is not one,
    as `duckdb_settings()` is refused.
    """
    found = connection.execute(
        "SELECT lower(view_name), CASE WHEN internal THEN lower(sql) ELSE '' END "
        "FROM duckdb_views() UNION SELECT lower(table_name), '' FROM duckdb_tables()"
    ).fetchall()
    refused = {name for name, sql in found if set(CALLED.findall(sql)) - DESCRIBING}
    return {name for name, _ in found} - refused


def _no_function(name: str) -> QueryRefused:
    return QueryRefused(
        f"{name}() is not for queries over runs, which read the runs' views and nothing else"
    )


def _no_view(connection: duckdb.DuckDBPyConnection, path: list[str]) -> QueryRefused:
    names = connection.execute(
        "SELECT DISTINCT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
    ).fetchall()
    return QueryRefused(
        f"there is no view {'.'.join(path)!r}, and files are not read: the views are "
        + ", ".join(name for (name,) in names)
    )


def _check_words(connection: duckdb.DuckDBPyConnection, sql: str) -> frozenset[str]:
    """Return the words of a statement without a tree, any of which may name a table it reads.

    QueryRefused: one of them may write.

    DuckDB lets a WITH clause write by INSERT, UPDATE, DELETE or COPY alone, and allowed paths still
    keep any other file closed.
    """
    words = words_of(sql)
    if words[0] not in FIRST_WORDS:
        raise _refused(words[0].upper())
    functions = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type LIKE 'table%'"
    ).fetchall()
    refused = {name for (name,) in functions} - TABLE_FUNCTIONS | SIDE_EFFECTS
    views = connection.execute("SELECT lower(view_name) FROM duckdb_views()").fetchall()
    closed = {name for (name,) in views} - _tables(connection)
    for word, after in pairwise([*words, ""]):
        if word in WRITING_WORDS:
            raise _refused(f"a PIVOT with {word.upper()}")
        if word in closed or (after == "(" and word in refused):
            raise _no_function(word)
    # A string may name a table too: FROM 'ranking'.
    reads = frozenset(word.strip("'") for word in words)
    return reads.union(() if NAMING.isdisjoint(words) else STATISTICS_VIEWS)
