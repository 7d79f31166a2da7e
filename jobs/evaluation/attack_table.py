"""The table of attacks in an edit's folder: read, added to and summed up."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.files import is_file, write_whole
from schemas.attack import ATTACKS, Attack, Side
from schemas.errors import StoreError

TABLE, SUMMARY = "attack.parquet", "attack.json"
"""The table, and the same rows as JSON."""

Row = dict[str, object]


class AttackTable:
    """The rows in an edit's folder; one command at a time adds to them."""

    def __init__(self, folder: Path) -> None:
        """Open the table of an edit; StoreError if its file is not one."""
        self._folder = folder
        self._rows: list[Row] = []
        path = folder / TABLE
        if is_file(path):
            try:
                table = pq.ParquetFile(path).read()
            except (OSError, pa.ArrowException) as error:
                raise StoreError(f"{path} is damaged: delete it to attack again") from error
            if not table.schema.equals(ATTACKS, check_metadata=True):
                raise StoreError(f"{path} is of another version of dqf: delete it to attack again")
            self._rows = table.to_pylist()

    def rows(self, ids: Iterable[str]) -> list[Row]:
        """Return the rows of those ids, in the order in which they were added."""
        wanted = set(ids)
        return [row for row in self._rows if row["attack_id"] in wanted]

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows and write both files; each is replaced as a whole."""
        self._rows = [*self._rows, *rows]
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._rows, schema=ATTACKS), content)
        write_whole(self._folder / TABLE, content.getvalue(), within=self._folder)
        summary = (json.dumps(self._rows, indent=2) + "\n").encode()
        write_whole(self._folder / SUMMARY, summary, within=self._folder)


def summary_rows(rows: Sequence[Row]) -> list[Row]:
    """Return one row a concept: its success plainly and under each attack, on both models."""
    wanted = (
        ("before", Side.UNEDITED, Attack.PLAIN),
        ("after", Side.EDITED, Attack.PLAIN),
        ("random", Side.EDITED, Attack.RANDOM),
        ("embedding", Side.EDITED, Attack.EMBEDDING),
        ("prompt", Side.EDITED, Attack.PROMPT),
        ("embedding, unedited", Side.UNEDITED, Attack.EMBEDDING),
        ("prompt, unedited", Side.UNEDITED, Attack.PROMPT),
    )
    summed = []
    for attack_id in dict.fromkeys(row["attack_id"] for row in rows):
        own = {(r["side"], r["attack"]): r for r in rows if r["attack_id"] == attack_id}
        first = own[Side.UNEDITED, Attack.PLAIN]
        shown = {name: own[side, kind] for name, side, kind in wanted if (side, kind) in own}
        found = own.get((Side.EDITED, Attack.PROMPT), {})
        summed.append(
            {"concept": first["concept"]}
            | {name: _with_interval(row) for name, row in shown.items()}
            | {"images": first["images"], "found prompt": found.get("prompt")}
            | {"seconds": sum(float(str(row["seconds"])) for row in own.values())}
        )
    return summed


def _with_interval(row: Row) -> str:
    return f"{row['success']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
