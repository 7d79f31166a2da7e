"""The proof of an edit by concept: exact bounds, verdicts, limits and the card, on known counts."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from scipy.stats import beta

from engine.statistics.exact import images_needed, lower_bound, upper_bound
from jobs.editing.manifest import MANIFEST
from jobs.evaluation.by_concept import results_by_concept
from jobs.evaluation.card import edit_card
from jobs.evaluation.judgment import Judgment, Limits, check_limits, judge
from jobs.evaluation.measures import results
from jobs.runs.evaluation_run import EvaluationRun
from jobs.runs.parts import part_name
from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from schemas.errors import ConceptError
from schemas.manifest import MANIFEST_VERSION, EditManifest, EditSite
from schemas.numerics import Numerics
from tests.cli.test_commands import dqf
from tests.made_up.evaluation_rows import Drawn, make_evaluation

DRAWN = (
    Drawn(name="cat", images=70, before=60, after=0, replacement="fox", replaced=45),
    Drawn(name="boat", images=15, before=15, after=0),
    Drawn(name="sun", images=20, before=20, after=9),
    Drawn(name="moon", images=20, before=0, after=0),
    Drawn(name="tiger", images=12, before=10, after=4, nearest="cat"),
    Drawn(name="lion", images=12, before=10, after=5, nearest="cat"),
    Drawn(name="ship", images=12, before=12, after=12, nearest="boat"),
)


@pytest.fixture
def run(tmp_path: Path) -> EvaluationRun:
    return make_evaluation(tmp_path / "evaluation", DRAWN)


def judged(run: EvaluationRun, limits: Limits) -> list[Judgment]:
    return judge(results(run), results_by_concept(run), limits)


def test_concepts_have_their_counts_and_the_worst_is_first(run: EvaluationRun) -> None:
    found = results_by_concept(run)
    assert [row.concept for row in found] == ["sun", "moon", "boat", "cat"]
    sun, moon, boat, cat = found
    assert (cat.prompts, cat.images, cat.right_before, cat.recognized) == (70, 70, 60, 0)
    assert cat.replacement_drawn == pytest.approx(45 / 60)
    assert (cat.neighbors, cat.moved) == (2, ("tiger",))
    assert cat.verdict == "erased; moves tiger"
    assert (boat.neighbors, boat.moved) == (1, ())
    assert boat.verdict == "never seen, too few images"
    assert boat.replacement_drawn is None
    assert sun.still_recognised == pytest.approx(0.45)
    assert sun.verdict == "still recognized"
    assert (moon.still_recognised, moon.at_most) == (None, None)
    assert moon.verdict.startswith("not measured")


def test_zero_of_a_few_images_is_not_zero() -> None:
    """The bounds are the quantiles of the beta distribution (Clopper and Pearson)."""
    assert upper_bound(0, 15) == pytest.approx(1 - 0.05 ** (1 / 15))
    assert upper_bound(3, 40) == pytest.approx(beta.ppf(0.95, 4, 37))
    assert lower_bound(37, 40) == pytest.approx(beta.ppf(0.05, 37, 4))
    assert upper_bound(4, 4) == 1.0
    assert lower_bound(0, 4) == 0.0
    assert upper_bound(0, 0) is None
    assert lower_bound(0, 0) is None


@pytest.mark.parametrize(("limit", "images"), [(0.05, 59), (0.01, 299), (0.5, 5)])
def test_as_many_images_are_needed_as_the_bound_says(limit: float, images: int) -> None:
    assert images_needed(limit) == images
    enough, fewer = upper_bound(0, images), upper_bound(0, images - 1)
    assert enough is not None
    assert fewer is not None
    assert enough <= limit < fewer


def few(name: str, before: int, after: int) -> Drawn:
    return Drawn(name=name, images=before, before=before, after=after)


@pytest.mark.parametrize(
    ("drawn", "limits", "met"),
    [
        # 0 of 15 images leaves up to 0.18, although no resample of zeros is above 0.
        ([few("a", 15, 0)], Limits(max_still_recognised=0.05), False),
        ([few("a", 15, 0)], Limits(max_still_recognised=0.2), True),
        ([few(n, 20, 0) for n in "abc"], Limits(max_still_recognised=0.05), True),
        ([few(n, 20, 0) for n in "abc"], Limits(max_still_recognised=0.05, each=True), False),
        ([few(n, 59, 0) for n in "ab"], Limits(max_still_recognised=0.05, each=True), True),
        # Few of all images, but all of one concept: resamples of concepts draw it several times.
        (
            [few("a", 30, 30), *(few(n, 30, 0) for n in "bcdefghijklmnopqrst")],
            Limits(max_still_recognised=0.1),
            False,
        ),
        ([few("a", 0, 0)], Limits(max_still_recognised=0.05), False),
        ([few("a", 60, 0)], Limits(min_kept=0.5), False),
    ],
)
def test_the_batch_is_judged_by_its_bound(
    tmp_path: Path, drawn: Sequence[Drawn], limits: Limits, met: bool
) -> None:
    some = [d if d.images else Drawn(name=d.name, images=3, before=0, after=0) for d in drawn]
    (judgment,) = judged(make_evaluation(tmp_path / "evaluation", some), limits)
    assert judgment.is_met == met, judgment.sentence
    assert judgment.sentence.startswith("met" if met else "NOT met")


def test_kept_names_and_concepts_are_judged_apart(tmp_path: Path) -> None:
    kept = [
        Drawn(name=n, images=50, before=50, after=50, nearest="cat") for n in ("owl", "cow", "pig")
    ]
    run = make_evaluation(tmp_path / "evaluation", [few("cat", 60, 30), *kept])
    still, kept_well = judged(run, Limits(max_still_recognised=0.05, min_kept=0.95))
    assert (still.is_met, kept_well.is_met) == (False, True)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(each=True), "--max-still-recognised"),
        (Limits(max_still_recognised=0.0), "between 0 and 1"),
        (Limits(min_kept=1.5), "--min-kept must be"),
        (Limits(min_kept=float("nan")), "between 0 and 1"),
    ],
)
def test_limits_that_cannot_be_shown_are_refused(limits: Limits, message: str) -> None:
    with pytest.raises(ConceptError, match=message):
        check_limits(limits)


def test_the_card_names_model_concepts_figures_and_limits(run: EvaluationRun) -> None:
    manifest = EditManifest(
        version=MANIFEST_VERSION,
        model="emoji-sd",
        model_hash="0123abcd",
        concepts=(
            Concept(concept="cat", replacement="fox"),
            Concept(concept="a | <b>"),
        ),
        settings=EditSettings(components=("text_encoder.layers.0.mlp",)),
        located=EditSite(component="text_encoder.layers.0.mlp"),
        numerics=Numerics(steps=2),
        scorer="s",
        key_pairs=1,
        kept_keys=0,
        key_seconds=0.0,
        solve_seconds=0.0,
        scores=(),
        untouched_change=None,
        matrices=(),
        lora="none",
        versions={"dqf": "9.9"},
        created="2026-01-01",
    )
    limits = Limits(max_still_recognised=0.05)
    card = edit_card(
        manifest, run, groups=results(run), concepts=results_by_concept(run),
        judgments=judged(run, limits),
    )  # fmt: skip
    lines = card.splitlines()
    assert lines[0] == "# Edit card"
    for said in ("| model hash | 0123abcd |", "cats, the cat, Cat", "| cat | 60 | 0 (0.0 %) |"):
        assert said in card
    assert r"a \| \<b\>" in card
    assert "NOT met: still recognized in at most" in card
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") - line.count(r"\|") for line in tables} == {3, 6, 7}
    assert "have no scores" not in card
    Path(run.location, part_name(0)).unlink()
    assert "1 of 7 units of evaluation have no scores" in edit_card(
        manifest, run, groups=[], concepts=[], judgments=[]
    )


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 0, "still recognized"),
        (("--max-still-recognised", "0.05"), 1, "NOT met: still recognized in at most"),
        (("--max-still-recognised", "0.9"), 0, "met: still recognized"),
        (("--max-still-recognised", "0.9", "--each"), 1, "NOT met: 1 of 4 concepts"),
        (("--min-kept", "0.95"), 1, "NOT met: kept names"),
        (("--each",), 2, "give --max-still-recognised"),
    ],
)
def test_the_command_prints_the_worst_first_and_ends_by_the_limits(
    run: EvaluationRun, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / MANIFEST).write_text("{}")  # the results of an edit need no more of it
    done = dqf("edit", "results", str(tmp_path), "--by", "concept", "--format", "csv", *options)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    if code != 2:
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [row["concept"] for row in rows] == ["sun", "moon", "boat", "cat"]
        assert "recognized" in dqf("edit", "results", str(tmp_path), "--by", "concept").stdout


def test_units_that_are_not_drawn_are_said_with_the_results(
    run: EvaluationRun, tmp_path: Path
) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    Path(run.location, part_name(0)).unlink()
    done = dqf("edit", "results", str(tmp_path), "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "1 of 7 units of evaluation have no scores: the numbers are of the" in done.stderr
