"""Files of prompts of a user's own: every wrong line is named."""

from pathlib import Path

import pytest

from jobs.input.given_prompts import read_given
from schemas.concept import Concept, ConceptKind
from schemas.errors import ConceptError

ORANGE = Concept(concept="orange")
COLOR = Concept(concept="orange", kind=ConceptKind.COLOR)
CAT = Concept(concept="Cat", replacement="dog")


def test_prompts_are_read_with_their_concepts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text(
        "concept,prompt,kind\ncat,a pet that purrs,\norange,an orange wall,colour\n"
        'orange,"a fruit, peeled",\n'
    )
    assert read_given(path, [ORANGE, COLOR, CAT]) == (
        ("a pet that purrs", CAT),
        ("an orange wall", COLOR),
        ("a fruit, peeled", ORANGE),
    )


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = (
        '{"concept": "cat", "prompt": "a cat"}',
        '{"concept": "cow", "prompt": "a cow"}',
        '{"concept": "cat", "prompt": "A cat "}',
        '{"concept": "cat", "prompt": "a cat", "kind": "style"}',
        '{"concept": "cat", "prompt": ["a cat"]}',
        '{"concept": "cat", "prompt": ""}',
        '{"concept": "cat", "prompt": "a cat", "kind": "animal"}',
    )
    path.write_text("\n".join(lines))
    with pytest.raises(ConceptError) as raised:
        read_given(path, [CAT])
    said = str(raised.value)
    assert "has 6 problems" in said
    assert "line 1:" not in said
    for number, wrong in (
        (2, "concept 'cow' is not edited: the edit has Cat"),
        (3, "prompt 'A cat' repeats line 1"),
        (4, "concept 'cat' is edited as object, not as style"),
        (5, "prompt: "),
        (6, "prompt: "),
        (7, "kind: "),
    ):
        assert f"line {number}: {wrong}" in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "concept,text\ncat,a cat\n", "no column 'prompt'"),
        ("p.yaml", "cat: a cat\ndog: a dog\n", "not a list of prompts"),
        ("p.txt", "a cat", "prompts are read from"),
    ],
)
def test_another_format_is_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConceptError, match=message):
        read_given(tmp_path / name, [CAT])
