"""A statement as DuckDB's parser sees it: its tree, the tables that it reads, its words."""

import json
from collections.abc import Iterator
from typing import Any, TypedDict, cast

import duckdb

from schemas.errors import QueryRefused


class _Clause(TypedDict):
    """A clause of WITH."""

    key: str
    value: Any


def parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """Return the tree of a SELECT; QueryRefused if DuckDB or Python cannot make it."""
    (text,) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0]
    try:
        tree = json.loads(text)
    except RecursionError:
        raise QueryRefused("the statement is nested too deeply: name its parts in WITH") from None
    if tree["error"]:
        raise QueryRefused(f"the statement cannot be checked: {tree['error_message']}")
    return tree["statements"]


def nodes_of(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a tree."""
    left = [tree]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            node = cast("dict[str, Any]", item)
            yield node
            left.extend(node.values())
        elif isinstance(item, list):
            left.extend(cast("list[Any]", item))


def tables_read(tree: Any) -> Iterator[str]:
    """Yield the names of the tables that a tree reads, in lower case, without their schemas.

    A name that a WITH clause defines is left out where it stands for that clause.
    """
    left: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while left:
        item, defined = left.pop()
        if isinstance(item, list):
            left += [(child, defined) for child in cast("list[Any]", item)]
        elif isinstance(item, dict):
            node = cast("dict[str, Any]", item)
            if node.get("type") == "BASE_TABLE":
                *schema, name = cast("list[str]", node["qualified_name"]["path"])
                if schema or name.lower() not in defined:
                    yield name.lower()
            name = cast("str | None", node.get("cte_name"))  # of a clause that reads itself
            itself: set[str] = {name.lower()} if name else set()
            for entry in _clauses(node):
                left.append((entry["value"], defined))
                defined |= {entry["key"].lower()}
            for key, child in node.items():
                if key != "cte_map":  # "left" is what it begins with
                    left.append((child, defined if key == "left" else defined | itself))


def _clauses(node: dict[str, Any]) -> list[_Clause]:
    entries: Any = node.get("cte_map")
    return cast("list[_Clause]", entries["map"]) if isinstance(entries, dict) else []


def words_of(sql: str) -> list[str]:
    """Return the tokens of a statement without comments, names in lower case without quotes."""
    encoded, tokens = sql.encode(), duckdb.tokenize(sql)
    ends = [start for start, _ in tokens[1:]] + [len(encoded)]
    return [
        encoded[start:end].decode().strip().strip('"').lower()
        for (start, kind), end in zip(tokens, ends, strict=True)
        if kind != duckdb.token_type.comment
    ]
