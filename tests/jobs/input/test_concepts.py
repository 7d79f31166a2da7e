"""Concept files: what is read, and the one sentence that each bad file gets."""

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.editing.pairs import prompt_pairs
from engine.model.vocabulary import Phrasebook
from jobs.input.concepts import read_concepts, read_numbered
from schemas.concept import NEUTRAL_REPLACEMENTS, Concept, ConceptKind, ConceptMode
from schemas.errors import ConceptError

EXAMPLES = Path(__file__).parents[3] / "docs/examples"


@pytest.mark.parametrize("name", ["concepts.csv", "concepts.yaml"])
def test_example_files_are_read_in_order(name: str) -> None:
    concepts = read_concepts(EXAMPLES / name)
    assert concepts[0].concept == "cat"
    assert concepts[0].replacement_text == "dog"


def test_empty_replacement_means_the_neutral_word_of_the_kind(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("concept,replacement,kind\nmonet,,style\nred,,colour\ncat,,\n")
    concepts = read_concepts(path)
    assert [c.kind for c in concepts] == [ConceptKind.STYLE, ConceptKind.COLOR, ConceptKind.OBJECT]
    assert [c.replacement_text for c in concepts] == [
        NEUTRAL_REPLACEMENTS[c.kind] for c in concepts
    ]


def test_target_is_the_old_name_of_the_replacement(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("concept,target,kind\ncat,dog,\nmonet,,style\n")
    assert read_concepts(path) == (
        Concept(concept="cat", replacement="dog"),
        Concept(concept="monet", kind=ConceptKind.STYLE),
    )
    path.write_text("concept,target,replacement\ncat,dog,\ncow,owl,fox\n")
    with pytest.raises(ConceptError, match="line 3: target is the old name of replacement"):
        read_concepts(path)


def test_all_formats_read_the_same(tmp_path: Path) -> None:
    templates = ["a {}, a photo", "two {}"]
    rows = [
        {"concept": "cat", "replacement": "dog", "kind": "object"},
        {"concept": "hot dog", "weight": 2.5, "prompts": templates},
        {"concept": "no", "replacement": "1984", "mode": "remove", "kind": "Fact"},
    ]
    (tmp_path / "c.csv").write_text(
        "concept,replacement,kind,mode,weight,prompts\ncat,dog,object\n"
        'hot dog,,,,2.5,"a {}, a photo|two {}"\nno,1984,fact,remove,,\n'
    )
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {name: [row.get(name) for row in rows] for row in rows for name in row}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    listed = (
        "- {concept: cat, replacement: dog, kind: object}\n"
        "- concept: hot dog\n  replacement:\n  weight: 2.5\n"
        "  prompts: ['a {}, a photo', 'two {}']\n"
        "- {concept: no, replacement: 1984, mode: remove, kind: Fact}\n"
    )
    (tmp_path / "c.yaml").write_text(listed)
    (tmp_path / "c.yml").write_text("concepts:\n" + listed)
    read = [
        read_concepts(tmp_path / f"c.{suffix}")
        for suffix in ("csv", "jsonl", "parquet", "yaml", "yml")
    ]
    assert read[0][1].prompts == tuple(templates)
    assert all(concepts == read[0] for concepts in read)


def test_the_mode_follows_the_target_where_none_is_given() -> None:
    assert Concept(concept="cat").mode is ConceptMode.REMOVE
    assert Concept(concept="cat", replacement="dog").mode is ConceptMode.UPDATE
    replaced = Concept(concept="cat", replacement="dog", mode=ConceptMode.REMOVE)
    assert (replaced.mode, replaced.replacement_text) == (ConceptMode.REMOVE, "dog")


def test_a_concept_is_the_same_after_json() -> None:
    concept = Concept(concept="cat", replacement="dog", weight=2, prompts=("a {}",))
    assert Concept.model_validate(concept.model_dump(mode="json")) == concept


def test_templates_may_be_a_json_list_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('concept,prompts\ncat,"[""a {} | b"", ""the {}""]"\n')
    assert read_concepts(path)[0].prompts == ("a {} | b", "the {}")


def test_own_templates_replace_those_of_the_kind_and_know_the_subject() -> None:
    concept = Concept(concept="photo", replacement="a cat", prompts=("a photo of a {} at night",))
    (pair,) = prompt_pairs([concept], book=Phrasebook())
    assert pair.source.caption == "a photo of a photo at night"
    assert pair.source.subject_characters == (13, 18)
    assert pair.replacement.subject_characters == (13, 18)


def test_the_subject_is_where_the_template_says_it() -> None:
    removed = Concept(concept="monet", kind=ConceptKind.STYLE)
    pairs = prompt_pairs([removed], book=Phrasebook(), forms=False)
    assert any(pair.replacement.caption.startswith("a photo of") for pair in pairs)
    for pair in pairs:
        for caption in (pair.source, pair.replacement):
            assert caption.subject_characters[1] == len(caption.caption)


def test_facts_have_bare_prompts_and_openings() -> None:
    fact = Concept(concept="the president of the US", replacement="a panda", kind=ConceptKind.FACT)
    said = [pair.source.caption for pair in prompt_pairs([fact], book=Phrasebook())]
    assert {"the president of the US", "a photo of the president of the US"} <= set(said)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# a comment\nconcepts:\n- concept: cat\n\n- concept: dog\n")
    assert [line for line, _ in read_numbered(tmp_path / "c.yaml")] == [3, 5]
    (tmp_path / "c.jsonl").write_text('\n{"concept": "cat"}\n\n{"concept": "dog"}\n')
    assert [line for line, _ in read_numbered(tmp_path / "c.jsonl")] == [2, 4]


def test_every_bad_line_is_named_in_order(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(
        '{"concept": "cat", "replacement": "dog"}\nnot json\n{"concept": ""}\n{"concpt": "x"}\n'
        '{"concept": "cat"}\n{"concept": "cow", "weight": -1}\n{"concept": "dog"}\n'
    )
    with pytest.raises(ConceptError) as caught:
        read_concepts(path)
    first, *lines = str(caught.value).split("\n")
    assert first == f"{path} has 6 problems:"
    assert [line.split(":")[0] for line in lines] == [f"  line {n}" for n in (1, 2, 3, 4, 5, 6)]
    assert "'cat' becomes 'dog', which line 7 edits: choose another replacement" in lines[0]


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("concept\n" + "--\n" * 500)
    with pytest.raises(ConceptError) as caught:
        read_concepts(path)
    said = str(caught.value)
    assert len(said) < 1000
    first, *named, more = said.split("\n")
    assert first.endswith("has 500 problems:")
    assert len(named) > 5
    assert more == f"  and {500 - len(named)} more"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "yaml"])
def test_thousands_of_rows_are_read_at_once(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"concept": f"thing {n}", "replacement": f"other {n}", "weight": 2} for n in range(3000)
    ]
    path = tmp_path / f"c.{suffix}"
    if suffix == "csv":
        said = [f"{row['concept']},{row['replacement']},2" for row in rows]
        path.write_text("\n".join(["concept,replacement,weight", *said]))
    else:
        mark = "- " if suffix == "yaml" else ""
        path.write_text("\n".join(mark + json.dumps(row) for row in rows))
    start = time.process_time()
    assert len(read_concepts(path)) == 3000
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no concept"),
        ("concept,replacement,kind\n", "holds no concept"),
        ("name,replacement\ncat,dog\n", "line 1: no column 'concept'"),
        ("concept,targte\ncat,dog\n", "line 1: unknown column 'targte'"),
        ("concept,replacement\ncat,dog\ncat,dog\n", "line 3: concept 'cat' repeats line 2"),
        ("concept,replacement\ncat,dog\n Cat,cow\n", "line 3: concept 'Cat' conflicts with line 2"),
        (
            "concept,replacement\ncat,dog\ncow,Cow\n",
            "line 3: concept and replacement are both 'cow'",
        ),
        ("concept,replacement\nobject,\n", "line 2: concept and replacement are both 'object'"),
        ("concept,replacement\n,dog\n", "line 2: concept: String should have at least 1 character"),
        (
            f"concept,replacement\n{'x' * 121},dog\n",
            "line 2: concept: String should have at most 120",
        ),
        ("concept,replacement\n--,dog\n", "line 2: concept: holds no letter or digit"),
        ('concept,replacement\n"a\nb",dog\n', "line 3: concept: holds a line break"),
        ("concept,replacement,kind\ncat,dog,animal\n", "line 2: kind: Input should be 'object'"),
        ('concept,replacement\ncat,"dog\n', "line 2: not CSV: unexpected end of data"),
        ("concept,replacement\ncat,dog,cow\n", "line 2: more fields than columns"),
        ("concept,weight\ncat,0\n", "line 2: weight: Input should be greater than 0"),
        ("concept,weight\ncat,nan\n", "line 2: weight: Input should be a finite number"),
        ("concept,weight\ncat,1_0\n", "line 2: weight: write '1_0' in decimal digits"),
        ("concept,weight\ncat,much\n", "line 2: weight: Input should be a valid number"),
        ("concept,mode\ncat,update\n", "line 2: mode update of 'cat' needs a replacement"),
        ("concept,mode\ncat,keep\n", "line 2: mode: Input should be 'remove' or 'update'"),
        ("concept,prompts\ncat,a photo\n", "line 2: prompts: template 'a photo' has 0 {}, not one"),
        ("concept,prompts\ncat,{} {}\n", "template '{} {}' has 2 {}, not one"),
        ("concept,prompts\ncat,a {}|\n", "template '' has 0 {}, not one"),
        ("concept,prompts\ncat,a {}|a {}\n", "template 'a {}' is given twice"),
        ("concept,prompts\ncat,[a {}\n", "starts with [ but is not a JSON list"),
        (f"concept,prompts\ncat,{{}}{'x' * 300}\n", "is over 300 characters"),
        (
            "concept,replacement\ncat,dog\ncow,Cat\n",
            "line 3: concept 'cow' becomes 'Cat', which line 2",
        ),
        ("concept,weight\ncat,1\ncat,2\n", "conflicts with line 2, which has other settings"),
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
        ("c.yaml", b"concepts: 3\n"),
        ("c.yaml", b"concept: cat\ntarget: dog\n"),
        ("c.yaml", b"- concept: cat\n  concept: dog\n"),
        ("c.yaml", b"- cat\n"),
        ("c.yaml", b"- !!set {concept}\n"),
        ("c.yaml", b"- concept: [cat\n"),
        ("c.yaml", b"- concept: !!python/name:os.system x\n"),
        ("c.yaml", b""),
    ],
)
def test_bad_bytes_are_a_concept_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConceptError):
        read_concepts(tmp_path / name)


def test_missing_file_is_a_concept_error(tmp_path: Path) -> None:
    with pytest.raises(ConceptError, match="no such file"):
        read_concepts(tmp_path / "c.csv")


def test_forms_are_listed_and_may_be_none(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("concept,forms\ncat,kitten | kittens\ndog,\nowl,[]\n")
    assert [c.forms for c in read_concepts(path)] == [("kitten", "kittens"), None, ()]
    for wrong, message in (("a|a", "given twice"), ("a||b", "no character"), ("a|--", "no letter")):
        path.write_text(f"concept,forms\ncat,{wrong}\n")
        with pytest.raises(ConceptError, match=message):
            read_concepts(path)
