"""The edits of a report, read from files that somebody else, or an older version, wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.report.edits import edit_headline, edit_sections, measure_rows
from schemas.errors import ConceptError
from schemas.results import EVALUATION, SUMMARY
from tests.made_up.report_run import make_report_edit, make_report_sweep

GONE = object()
"""A field that is left out."""
ROWS = [
    ("of_right_low", GONE, "row 2, has no field 'of_right_low'"),
    ("group", GONE, "row 2, has no field 'group'"),
    ("similarity", GONE, "row 2, has no field 'similarity'"),
    ("of_right", "x", "row 2: of_right: Input should be a valid number"),
    ("after_high", [0.5], "row 2: after_high: Input should be a valid number"),
    ("names", 1.5, "row 2: names: Input should be a valid integer"),
    pytest.param("cmmd", 10**400, "row 2: cmmd: Input should be a valid number", id="digits"),
    ("group", None, "row 2: group: Input should be a valid string"),
    ("erased", 0.5, "row 2 has the unknown field 'erased'"),
]
TRADES = [
    ("kept", GONE, "row 2, has no field 'kept'"),
    ("harmonic_of_right_high", GONE, "row 2, has no field 'harmonic_of_right_high'"),
    ("is_best", GONE, "row 2, has no field 'is_best'"),
    ("kept_of_right", "most", "row 2: kept_of_right: Input should be a valid number"),
    ("edit", 3, "row 2: edit: Input should be a valid string"),
    ("kept", 1.5, "row 2: kept: Input should be less than or equal to 1"),
    ("cmmd", {}, "row 2: cmmd: Input should be a valid number"),
    ("still_there", 0.5, "row 2 has the unknown field 'still_there'"),
]
DOCUMENTS = [None, 3, "x", {}, {"results": None}, {"results": {"group": "kept"}}, [3], ["x"], [[]]]


def change(row: dict[str, Any], field: str, value: object) -> None:
    if value is GONE:
        del row[field]
    else:
        row[field] = value


def refused(folder: Path, file: Path, said: str) -> None:
    """Assert that one sentence, which names the file, says what is wrong with it."""
    for read in (lambda: measure_rows(edit_sections([folder])), lambda: edit_headline(folder)):
        with pytest.raises(ConceptError) as refusal:
            read()
        sentence = str(refusal.value)
        assert sentence.startswith(f"{file}")
        assert said in sentence
        assert "again" in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize(("field", "value", "said"), ROWS)
def test_damaged_rows_of_an_evaluation_are_named(
    tmp_path: Path, field: str, value: object, said: str
) -> None:
    folder = make_report_edit(tmp_path / "edit")
    file = folder / "evaluation" / "evaluation.json"
    document = json.loads(file.read_text())
    change(document["results"][1], field, value)
    file.write_text(json.dumps(document))
    refused(folder, file, said)


@pytest.mark.parametrize(("field", "value", "said"), TRADES)
def test_damaged_rows_of_a_sweep_are_named(
    tmp_path: Path, field: str, value: object, said: str
) -> None:
    folder = make_report_sweep(tmp_path / "sweep")
    file = folder / "sweep.json"
    rows = json.loads(file.read_text())
    change(rows[1], field, value)
    file.write_text(json.dumps(rows))
    refused(folder, file, said)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_without_rows_are_named(tmp_path: Path, document: object) -> None:
    edit, sweep = make_report_edit(tmp_path / "edit"), make_report_sweep(tmp_path / "sweep")
    for folder, file in (
        (edit, edit / "evaluation" / "evaluation.json"), (sweep, sweep / "sweep.json")
    ):  # fmt: skip
        file.write_text(json.dumps(document))
        refused(folder, file, "Input should be a valid")


def test_whole_files_are_read(tmp_path: Path) -> None:
    edit, sweep = make_report_edit(tmp_path / "edit"), make_report_sweep(tmp_path / "sweep")
    of_edit, of_sweep = edit_sections([edit, sweep])
    assert of_edit.sentence == (
        "Of the images that the unedited model draws right: 5.0 % (0.0 % to 10.0 %) of the "
        "concepts' images still show them; 85.0 % (80.0 % to 90.0 %) of what is kept is still "
        "recognized; the harmonic mean is 90.0 % (85.0 % to 95.0 %)."
    )
    assert [result.is_best for result in of_sweep.swept] == [True, True, False]


def test_units_of_an_evaluation_without_scores_are_said(tmp_path: Path) -> None:
    folder = make_report_edit(tmp_path / "edit")
    file = folder / EVALUATION / SUMMARY
    summary = json.loads(file.read_text())
    file.write_text(json.dumps({**summary, "units": {"done": 6, "failed": 1, "total": 9}}))
    said = "4 of 9 units of the evaluation have no scores. "
    (section,) = edit_sections([folder])
    assert section.sentence.startswith(f"{said}Of the images")
    assert section.headline.startswith(said)
    assert edit_headline(folder).startswith(said)
    file.write_text(json.dumps({**summary, "units": {"done": "x"}}))
    with pytest.raises(ConceptError, match="field 'units': done: Input should be a valid integer"):
        edit_headline(folder)
