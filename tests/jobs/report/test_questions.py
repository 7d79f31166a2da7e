"""The report of an evaluation or attack: its questions answered, as text, at most so many rows."""

import re
from pathlib import Path

import pytest

from jobs.report import questions
from jobs.report.questions import write_questions
from jobs.runs.attack_run import AttackRun
from jobs.runs.evaluation_run import EvaluationRun
from tests.made_up.attacked import make_attack
from tests.made_up.evaluation_rows import Drawn, make_evaluation

DRAWN = (
    Drawn(name="cat", images=10, before=8, after=2),
    Drawn(name="bus", images=10, before=10, after=0, replacement="boat", replaced=7),
    Drawn(name="dog", images=6, before=6, after=1, nearest="cat"),
)


def written(run: EvaluationRun | AttackRun, folder: Path) -> str:
    path = folder / "page.html"
    assert write_questions(run, path) == path.stat().st_size
    return path.read_text()


def rows(page: str) -> list[list[str]]:
    found = re.findall("<tr>(.*?)</tr>", page)
    return [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in found]


def test_an_evaluation_says_which_concepts_and_prompts_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_evaluation(tmp_path / "cats" / "evaluation", DRAWN)
    run.complete()
    page = written(run, tmp_path)
    assert "<h1>cats/evaluation</h1>" in page
    (concepts, *found), (prompts, *_) = rows(page)[:3], rows(page)[3:]
    assert concepts[1:4] == ["concept", "kind", "still recognised"]
    assert [(row[1], row[3]) for row in found] == [("cat", "0.250"), ("bus", "0.000")]
    assert prompts[0] == "concept"
    assert "more row" not in page
    monkeypatch.setattr(questions, "MOST_ROWS", 1)
    cut = written(run, tmp_path)
    assert "1 more row: <code>dqf query " in cut
    assert "--example concepts-that-survive</code>" in cut


def test_an_attack_says_what_comes_back(tmp_path: Path) -> None:
    head, *found = rows(written(make_attack(tmp_path / "cats" / "attack"), tmp_path))
    assert head == ["concept", "attack", "unedited", "edited"]
    assert found == [["cat", "prompt", "0.750", "0.500"], ["cat", "plain", "1.000", "0.000"]]
