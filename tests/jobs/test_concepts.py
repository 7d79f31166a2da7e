"""Concept files: what is read, and the one sentence that each bad file gets."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.concepts import read_concepts
from schemas.concept import NEUTRAL_TARGETS, ConceptKind
from schemas.errors import ConceptError

EXAMPLE = Path(__file__).parents[2] / "docs/examples/concepts.csv"


def test_example_file_is_read_in_order() -> None:
    concepts = read_concepts(EXAMPLE)
    assert concepts[0].concept == "cat"
    assert concepts[0].target_text == "dog"


def test_empty_target_means_the_neutral_word_of_the_kind(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("concept,target,kind\nmonet,,style\nred,,colour\ncat,,\n")
    concepts = read_concepts(path)
    assert [c.kind for c in concepts] == [ConceptKind.STYLE, ConceptKind.COLOR, ConceptKind.OBJECT]
    assert [c.target_text for c in concepts] == [NEUTRAL_TARGETS[c.kind] for c in concepts]


def test_csv_jsonl_and_parquet_read_the_same(tmp_path: Path) -> None:
    rows = [{"concept": "cat", "target": "dog", "kind": "object"}, {"concept": "hot dog"}]
    (tmp_path / "c.csv").write_text("concept,target,kind\ncat,dog,object\nhot dog,,\n")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    read = [read_concepts(tmp_path / f"c.{suffix}") for suffix in ("csv", "jsonl", "parquet")]
    assert read[0] == read[1] == read[2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no concept"),
        ("concept,target,kind\n", "holds no concept"),
        ("name,target\ncat,dog\n", "line 1: no column 'concept'"),
        ("concept,targte\ncat,dog\n", "line 1: unknown column 'targte'"),
        ("concept,target\ncat,dog\ncat,dog\n", "line 3: concept 'cat' repeats line 2"),
        ("concept,target\ncat,dog\n Cat,cow\n", "line 3: concept 'Cat' conflicts with line 2"),
        ("concept,target\ncat,dog\ncow,Cow\n", "line 3: concept and target are both 'cow'"),
        ("concept,target\nobject,\n", "line 2: concept and target are both 'object'"),
        ("concept,target\n,dog\n", "line 2: concept: String should have at least 1 character"),
        (f"concept,target\n{'x' * 121},dog\n", "line 2: concept: String should have at most 120"),
        ("concept,target\n--,dog\n", "line 2: concept: holds no letter or digit"),
        ('concept,target\n"a\nb",dog\n', "line 3: concept: holds a line break"),
        ("concept,target,kind\ncat,dog,animal\n", "line 2: kind: Input should be 'object'"),
        ("concept,target\ncat,dog,cow\n", "line 2: more fields than columns"),
    ],
)
def test_bad_csv_gets_one_sentence_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(ConceptError) as caught:
        read_concepts(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.jsonl", b'{"concept": "cat"\n'),
        ("c.jsonl", b"[1]\n"),
        ("c.jsonl", b'{"concept": 3}\n'),
        ("c.parquet", b"not parquet"),
        ("c.csv", b"concept\n\xff\xfe\n"),
        ("c.txt", b"cat"),
    ],
)
def test_bad_bytes_are_a_concept_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConceptError):
        read_concepts(tmp_path / name)


def test_missing_file_is_a_concept_error(tmp_path: Path) -> None:
    with pytest.raises(ConceptError, match="no such file"):
        read_concepts(tmp_path / "c.csv")
