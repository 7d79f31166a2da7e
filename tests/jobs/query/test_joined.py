"""Joined effects of an exact and a screened run: intervals that cover, and what is said of them."""

from pathlib import Path

import numpy as np
import pytest

from jobs.query.joined import joined, leading, opened_with, sentences
from jobs.query.rank import Choice
from jobs.runs.trace_run import TraceRun
from jobs.tracing.exact_plans import ExactRequest, exact_plan
from schemas.caption_filter import EVERY_CAPTION, CaptionFilter
from schemas.errors import PlanError
from tests.cli.test_commands import dqf
from tests.made_up.screened_run import effects, make_exact_run, make_screened_run, mean_effect

CHOICE = Choice(measure="target")


def pair(path: Path, *, seed: int = 0, captions: int = 48) -> tuple[TraceRun, TraceRun]:
    """Return a screened run and the exact run of its first states."""
    screened = make_screened_run(path / f"a{seed}", seed=seed, captions=captions)
    plan = exact_plan(screened, ExactRequest(top=4, random=4))
    return make_exact_run(path / f"b{seed}", plan, seed=seed), screened


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[TraceRun, TraceRun]:
    return pair(tmp_path_factory.mktemp("runs"))


def test_a_mean_joins_what_was_exact_with_what_was_screened(
    runs: tuple[TraceRun, TraceRun],
) -> None:
    """By hand: captions of the ranking are in neither mean."""
    exact, screened = runs
    chosen = exact.plan.exact_states
    assert chosen is not None
    with opened_with(exact, screened, EVERY_CAPTION) as views:
        rows = joined(views, CHOICE)
    assert len(rows) == 8
    assert [row["mean_ie"] for row in rows] == sorted((r["mean_ie"] for r in rows), reverse=True)
    assert {row["chosen"] for row in rows} == {"top", "random"}
    assert leading(rows, top=2) == rows[:2]
    own = {caption.id for caption in exact.plan.captions}
    for row in rows:
        of = {
            caption.id: effects(0, caption.caption, row["component"], row["step_start"])
            for caption in screened.plan.captions
            if caption.id not in chosen.ranked_captions
        }
        assert (row["num_captions"], row["num_screened"]) == (12, 30)
        assert row["exact_ie"] == pytest.approx(np.mean([of[each][0] for each in own]))
        assert row["screened_ie"] == pytest.approx(np.mean([f for _, f in of.values()]))
        assert row["ie_low"] < row["mean_ie"] < row["ie_high"]
    assert np.mean([row["gain"] for row in rows]) > 1.3  # at r = 0.9, with 18 others
    assert float(np.mean([row["weight"] for row in rows])) == pytest.approx(
        2 * 0.81 * 18 / 30, rel=0.2
    )


def test_what_was_screened_what_exact_and_what_missed_is_said(
    runs: tuple[TraceRun, TraceRun],
) -> None:
    exact, screened = runs
    with opened_with(exact, screened, EVERY_CAPTION) as views:
        rows = joined(views, CHOICE)
    counted, missed, unbiased = sentences(exact, screened, rows)
    assert counted == (
        "object, denoiser: 32 states were screened by relp on 48 captions; the first 4 by their "
        "ranking on 18 of these and 4 drawn from the others are estimated on 30 other ones, of "
        "which 12 were traced exactly."
    )
    assert "object, denoiser: the screen missed" in missed
    assert "of the 4 drawn states" in missed
    assert "biases none" in unbiased
    assert sentences(exact, screened, []) == []


def test_another_run_is_refused(tmp_path: Path, runs: tuple[TraceRun, TraceRun]) -> None:
    exact, screened = runs
    other = make_screened_run(tmp_path / "other", captions=40)
    with (
        pytest.raises(PlanError, match="chosen from another run"),
        opened_with(exact, other, EVERY_CAPTION),
    ):
        pass
    with (
        pytest.raises(PlanError, match="was not chosen from a screened run"),
        opened_with(screened, screened, EVERY_CAPTION),
    ):
        pass


def test_a_filter_reads_the_same_captions_of_both(runs: tuple[TraceRun, TraceRun]) -> None:
    """No caption has so large a total effect."""
    exact, screened = runs
    with opened_with(exact, screened, CaptionFilter(min_te=0.7)) as views:
        assert joined(views, CHOICE) == []


@pytest.mark.slow
def test_intervals_of_chosen_states_cover(tmp_path: Path) -> None:
    """The choice would raise the means of what it chooses; 40 runs of 8 states each."""
    covered, errors = [], []
    for seed in range(40):
        exact, screened = pair(tmp_path, seed=seed)
        with opened_with(exact, screened, EVERY_CAPTION) as views:
            for row in joined(views, CHOICE):
                true = mean_effect(row["component"], row["step_start"])
                covered.append(row["ie_low"] <= true <= row["ie_high"])
                errors.append((row["mean_ie"] - true, row["chosen"]))
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / len(covered))
    top = [error for error, how in errors if how == "top"]
    assert abs(np.mean(top)) < 3 * np.std(top) / np.sqrt(len(top))


def test_the_command_prints_both(runs: tuple[TraceRun, TraceRun]) -> None:
    exact, screened = runs
    words = ("rank", exact.location, "--with", screened.location)
    done = dqf(*words)
    assert done.returncode == 0, done.stderr
    assert "were screened by relp on 48 captions" in done.stdout
    assert "exact alone" in done.stdout
    table = dqf(*words, "--format", "csv", "--top", "3")
    assert table.returncode == 0, table.stderr
    assert len(table.stdout.splitlines()) == 4
    assert "screen missed" in table.stderr
    none = dqf(*words, "--min-te", "0.7")
    assert none.returncode == 2
    assert "no state of run b0 has two exact captions among those read" in none.stderr
    refused = dqf(*words, "--show", "overlap")
    assert refused.returncode == 2
    assert "--with ranks indirect effects" in refused.stderr


def test_the_command_chooses_from_a_run(tmp_path: Path) -> None:
    """Bad input is one sentence and exit code 2."""
    run = make_screened_run(tmp_path / "a")
    words = ("trace", "plan", "--no-calibrate", "--from-run", run.location)
    for more, said in (
        ((), "give --exact"),
        (("--exact", "3", "--steps", "5"), "leave out --steps"),
        (("--exact", "32"), "--exact takes fewer"),
        (("--exact", "3", "--share", "0.1"), "3 are traced exactly"),
    ):
        done = dqf(*words, *more)
        assert done.returncode == 2, done.stderr
        (sentence,) = (line for line in done.stderr.splitlines() if line.startswith("dqf: "))
        assert said in sentence
