"""The acceptance table, and what the training's command line refuses."""

import pytest

from engine.reference import train
from engine.reference.evaluate import Result, table
from engine.reference.judge import PAIR_QUESTIONS, QUESTIONS


def result(model: str, **generated: float) -> Result:
    shares = dict.fromkeys(QUESTIONS, 0.99) | generated
    return Result(
        model=model,
        prompts=600,
        guidance=3.0,
        steps=20,
        generated=shares,
        unseen_pairs=shares,
        two_objects=dict.fromkeys((*PAIR_QUESTIONS, "binding"), 0.7),
        seconds_per_image=0.2,
    )


def row(lines: str, question: str) -> list[str]:
    line = next(line for line in lines.splitlines() if line.startswith(f"| {question} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_marks_what_falls_short_of_the_acceptance() -> None:
    results = [result("emoji-sd", object=0.9299), result("emoji-dit", count=0.85)]
    scorer = dict.fromkeys((*QUESTIONS, *PAIR_QUESTIONS, "binding"), 0.96)
    lines = table(results, scorer, size=41.5)
    header = next(line for line in lines.splitlines() if "forced choice" in line)
    assert len(header.split("|")) == len(lines.splitlines()[3].split("|"))
    assert row(lines, "object") == [
        "object", "0.930 (short)", "0.990", "0.930", "0.960 (short)", "0.970"
    ]  # fmt: skip
    assert row(lines, "count")[1:4] == ["0.990", "0.850", "0.850"]
    assert row(lines, "viewpoint")[4:] == ["0.960", "0.950"]
    assert row(lines, "binding") == ["binding", "0.700", "0.700", "", "0.960", ""]


def test_an_unknown_stage_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--stage", "vae,unets", "--work", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert stopped.value.code == 2
    assert "unknown stage unets: there are data, vae" in capsys.readouterr().err
