"""Readers of documents: whatever is in a file, one short sentence with its name."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.files import read_bytes, read_json_file
from engine.model.vocabulary import read_vocabulary
from engine.model.weight_files import PartError
from engine.model.weight_files import read_json as read_part_json
from jobs.editing.manifest import read_manifest
from jobs.input.captions import read_captions
from jobs.input.concepts import read_concepts
from jobs.pool.attempts import attempts
from jobs.runs.trace_run import open_run
from jobs.tracing.plan import read_plan
from schemas.documents import parsed, read_json, read_yaml
from schemas.errors import ConceptError, DqfError, PlanError, StoreError
from tests.made_up.small_run import make_run

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
YAML = {
    "laughs": LAUGHS,
    "itself": "&a [*a]",
    "itself in a mapping": "&a {b: *a}",
    "deep": "[" * 100_000,
    "deep mappings": "\n".join(" " * n + "a:" for n in range(3000)),
    "deep and whole": "[" * 900 + "]" * 900,
    "no date": "steps: 2024-99-99",
    "no timestamp": "steps: !!timestamp soon",
    "no bool": "steps: !!bool perhaps",
    "no int": 'steps: !!int ""',
    "digits": f"steps: {'9' * 5000}",
    "code": "!!python/object/apply:os.system [ls]",
    "list as key": "? [a]\n: b",
    "merge of a number": "a: {<<: [3]}",
    "twice": "steps: 1\nsteps: 2",
    "two documents": "a: 1\n---\na: 2",
    "null byte": "a: \x00",
    "no anchor": "a: *b",
    "huge": "- " + "x" * (5 * 2**20),
}
JSON = {
    "deep": "[" * 100_000,
    "deep and whole": "[" * 500 + "]" * 500,
    "digits": "9" * 5000,
    "infinite": '{"a": [1e999]}',
    "digits of a float": f"[{'1' * 400}.5]",
    "nan": "[NaN]",
    "minus infinity": "[-Infinity]",
    "half a pair": '"\\ud800"',
    "cut": '{"a": "b',
    "nothing": "",
    "more": "[1] 2",
    "no UTF-8": b'"\xff"',
    "twice": '{"concept": "cat", "concept": "dog"}',
    "twice within": '{"a": [{"b": 1, "c": {}, "b": 1}]}',
    "twice by an escape": '{"a": 1, "\\u0061": 2}',
    "twice and long": f'{{"{"a" * 10_000}": 1, "{"a" * 10_000}": 1}}',
}


def sentence(error: BaseException) -> str:
    """Return an error's message, which is one that a user can read."""
    text = str(error)
    assert len(text) < 1000
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("name", YAML)
def test_odd_yaml_is_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(YAML[name])
    began = time.process_time()
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert str(path) in sentence(caught.value)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", YAML)
def test_odd_yaml_is_no_table(name: str, tmp_path: Path) -> None:
    path = tmp_path / "concepts.yaml"
    path.write_text(YAML[name])
    with pytest.raises(ConceptError) as caught:
        read_concepts(path)
    assert str(path) in sentence(caught.value)


@pytest.mark.parametrize("name", JSON)
def test_odd_json_is_one_sentence(name: str, tmp_path: Path) -> None:
    content = JSON[name]
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StoreError) as caught:
        read_json_file(path, error=StoreError)
    assert str(path) in sentence(caught.value)


@pytest.mark.parametrize("name", JSON)
def test_odd_json_is_no_row(name: str, tmp_path: Path) -> None:
    content = JSON[name]
    path = tmp_path / "captions.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PlanError) as caught:
        read_captions(path)
    assert str(path) in sentence(caught.value)


def test_a_field_given_twice_is_named_by_every_reader(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    readers: dict[str, Callable[[], object]] = {
        "r/plan.json": lambda: open_run(run.location),
        "trace.json": lambda: read_plan(tmp_path / "trace.json"),
        "r/attempts/0001.json": lambda: attempts(run),
        "edit.json": lambda: read_manifest(tmp_path),
        "vocabulary.json": lambda: read_vocabulary(tmp_path),
        "model_index.json": lambda: read_part_json(tmp_path / "model_index.json"),
    }
    for name, read in readers.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"objects": ["cat"], "inside": {"a": 1, "a": 1}}')
        with pytest.raises((DqfError, PartError)) as caught:
            read()
        said = sentence(caught.value)
        assert (path.name in said, said.endswith("gives the field 'a' twice")) == (True, True), name


def test_what_is_no_bomb_is_read() -> None:
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}", "f", error=PlanError) == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
    }
    assert read_yaml("# nothing", "f", error=PlanError) is None
    assert read_json('["1e999", 1e-999, 1E5]', "f", error=PlanError) == ["1e999", 0.0, 1e5]


def test_a_line_of_json_may_hold_any_line_end_of_unicode(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    row = '{"caption": "a cat", "subject": "cat", "attribute": "an\u2028object"}'
    path.write_text(f"\ufeff{row}\r\n\n", encoding="utf-8")
    assert read_captions(path)[0].attribute == "an\u2028object"
    path.write_text('{"concept": "cat", "concept": "dog"}\n')
    with pytest.raises(ConceptError, match="line 1: gives the field 'concept' twice"):
        read_concepts(path)


@pytest.mark.parametrize(
    "table",
    [
        {"concept": pa.array([2**60], pa.timestamp("us"))},
        {"concept": pa.array([[["a"]]], pa.list_(pa.list_(pa.string())))},
        {"concept": pa.array([b"\xff"], pa.binary())},
        {"concept": pa.array([10**30], pa.decimal128(38, 0))},
        {"concept": ["a"], "attribute": ["b"]},
    ],
)
def test_odd_parquet_is_one_sentence(table: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "concepts.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(ConceptError) as caught:
        read_concepts(path)
    assert str(path) in sentence(caught.value)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConceptError, match="not a Parquet file"):
        read_concepts(path)


def test_a_table_of_endless_rows_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "concepts.parquet"
    nothing = pa.array([None] * 2_000_000, pa.string())
    with pq.ParquetWriter(path, pa.schema([("concept", pa.string())])) as writer:
        for _ in range(6):
            writer.write_table(pa.table({"concept": nothing}))
    assert path.stat().st_size < 100_000
    began = time.process_time()
    with pytest.raises(ConceptError, match="has more than 10,000,000 rows"):
        read_concepts(path)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".yaml", ".parquet"])
def test_what_is_no_regular_file_is_not_waited_for(suffix: str, tmp_path: Path) -> None:
    pipe, folder, device = (tmp_path / f"{name}{suffix}" for name in ("pipe", "folder", "device"))
    os.mkfifo(pipe)
    folder.mkdir()
    device.symlink_to("/dev/zero")
    for path in (pipe, folder, device):
        with pytest.raises(ConceptError) as caught:
            read_concepts(path)
        assert str(path) in sentence(caught.value)
        with pytest.raises(DqfError):
            read_bytes(path, error=DqfError)


def test_a_type_names_the_field_that_is_wrong() -> None:
    huge = "x" * 10_000_000
    with pytest.raises(StoreError, match=r"edit\.json: ") as caught:
        parsed(dict[str, int], {huge: huge}, "edit.json", error=StoreError)
    assert len(str(caught.value)) < 1000 or "x" * 900 in str(caught.value)


@pytest.mark.parametrize(
    "written", ["010", "-07", "1:30", "1:30.5", "190:20:30", "1_0", "1_0.5", "0x10", "0b1"]
)
def test_a_number_that_yaml_reads_as_another_is_refused(written: str) -> None:
    for text in (f"seeds: [{written}]", f"{written}: a"):
        with pytest.raises(PlanError, match=f"{written} is a number in no decimal digits"):
            read_yaml(text, "p.yaml", error=PlanError)
    assert read_yaml(f'[0, 10, 0.5, 1e3, "{written}"]', "p", error=PlanError) == [
        0, 10, 0.5, "1e3", written,
    ]  # fmt: skip
