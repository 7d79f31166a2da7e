"""The formats in which a run's tables are exported."""

from enum import StrEnum


class TableFormat(StrEnum):
    """A format of exported tables."""

    DUCKDB = "duckdb"
    PARQUET = "parquet"
    CSV = "csv"
