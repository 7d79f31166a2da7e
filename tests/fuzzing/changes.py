"""One change to a folder of valid files: of a field, a column, a byte, or of what a file is."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

How = Literal[
    "set", "drop", "add", "byte", "cut", "empty", "gone", "folder", "pipe", "link", "dangling",
]  # fmt: skip
HOWS: tuple[How, ...] = (
    "set", "set", "set", "drop", "add", "byte", "cut", "empty", "gone", "folder", "pipe", "link",
    "dangling",
)  # fmt: skip
DEEP: Any = [1]
for _ in range(30):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 0.5, 10**30, 1e308, float("nan"), float("-inf"), "", " ", "cat", "1",
    "../../outside/mine", "/dev/zero", "http://127.0.0.1:9", "\x1b[31mred\x1b]0;title\x07",
    "a\nb\rc", "\u202eright", "%s{}{0}'\";--", "a " * 3000, "ß\u0301", "2026-13-99T99:99:99",
    [], [None], {}, {"a": {"b": []}}, {"": 1}, DEEP, ["cat", "cat"], [0, 0], [-1], "\0",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is changed; numbers are taken modulo what there is."""

    file: int
    how: How
    at: int = 0
    value: int = 0
    """Index into VALUES, or the byte."""


CHANGES = st.builds(
    Change,
    file=st.integers(0, 200),
    how=st.sampled_from(HOWS),
    at=st.integers(0, 2000),
    value=st.integers(0, 255),
)


def apply(change: Change, folder: Path, *, outside: Path) -> Path:
    """Change one file below `folder`, and return its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[change.file % len(files)]
    replaced: Mapping[str, Callable[[], object]] = {
        "gone": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(outside / "mine"),
        "dangling": lambda: path.symlink_to(outside / "none"),
    }
    if change.how in replaced:
        path.unlink()
        replaced[change.how]()
    elif change.how in ("set", "drop", "add") and path.suffix in DOCUMENTS:
        DOCUMENTS[path.suffix](path, change)
    else:
        _damage(path, change)
    return path


def _damage(path: Path, change: Change) -> None:
    content = bytearray(path.read_bytes())
    if change.how == "empty" or not content:
        content.clear()
    elif change.how == "cut":
        del content[change.at % len(content) :]
    else:
        # Headers and footers are where the structure is.
        at = change.at if change.at % 2 else len(content) - 1 - change.at
        content[at % len(content)] = change.value
    path.write_bytes(content)


def _change_json(path: Path, change: Change) -> None:
    path.write_text(json.dumps(_changed(json.loads(path.read_text()), change)))


def _change_yaml(path: Path, change: Change) -> None:
    path.write_text(yaml.safe_dump(_changed(yaml.safe_load(path.read_text()), change)))


def _change_safetensors(path: Path, change: Change) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(_changed(json.loads(content[8 : 8 + size]), change)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


def _change_parquet(path: Path, change: Change) -> None:
    """Change a column: another value in all its rows, another name, none, or one more."""
    table = pq.read_table(path, partitioning=None)
    name = table.column_names[change.at % table.num_columns]
    value = VALUES[change.value % len(VALUES)]
    if change.how == "drop":
        table = table.drop_columns([name])
    elif change.how == "add":
        table = table.append_column("more", pa.nulls(len(table)))
    else:
        n = table.column_names.index(name)
        try:
            column = pa.array([value] * len(table), type=table.schema.field(n).type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            column = pa.array([str(value)] * len(table))
        table = table.set_column(n, name, column)
    pq.write_table(table, path)


def _change_jsonl(path: Path, change: Change) -> None:
    rows = _changed([json.loads(line) for line in path.read_text().splitlines()], change)
    rows = rows if isinstance(rows, list) else [rows]
    path.write_text("\n".join(json.dumps(row) for row in rows))


def _change_lines(path: Path, change: Change) -> None:
    """Change one field of a line of CSV."""
    lines = [line.split(",") for line in path.read_text().splitlines()]
    changed = _changed(lines, change)
    rows = changed if isinstance(changed, list) else [changed]
    path.write_text(
        "\n".join(",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows)
    )


DOCUMENTS: Mapping[str, Callable[[Path, Change], None]] = {
    ".json": _change_json,
    ".jsonl": _change_jsonl,
    ".yaml": _change_yaml,
    ".parquet": _change_parquet,
    ".safetensors": _change_safetensors,
    ".csv": _change_lines,
}


def _changed(document: Any, change: Change) -> Any:
    """Return a document with one field set, dropped or added; the document itself too is one."""
    root = {"": document}
    places = list(_places(root))
    holder, key = places[change.at % len(places)]
    value = VALUES[change.value % len(VALUES)]
    if change.how == "drop":
        del holder[key]
    elif change.how == "set" or not isinstance(holder[key], dict | list):
        holder[key] = value
    elif isinstance(holder[key], dict):
        holder[key] = {**holder[key], "more": value}
    else:
        holder[key] = [*holder[key], value]
    return root.get("")


def _places(holder: Any) -> Any:
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def fresh(whole: Path, folder: Path) -> Path:
    """Make `folder/work` a copy of `whole`, whatever a command left there, beside a folder
    `outside` with a file that no command may touch; return the copy."""
    outside, work = folder / "outside", folder / "work"
    outside.mkdir(exist_ok=True)
    (outside / "mine").write_bytes(b"not dqf's")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(whole, work, symlinks=True)
    return work
