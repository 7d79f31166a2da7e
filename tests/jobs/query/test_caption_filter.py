"""Captions that the model never knew are left out where a run is read, and counted."""

from pathlib import Path

import pytest

from jobs.query.rank import Choice, check_threshold, ranked, ranked_as_published
from jobs.query.select import open_query, opened_views
from jobs.query.words import verdicts
from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun
from jobs.tracing.plan import make_plan
from schemas.caption import Caption
from schemas.caption_filter import CaptionFilter
from schemas.component import Part
from schemas.errors import PlanError
from schemas.plan import TracePlan
from tests.made_up.runs import commit_all, make_components, make_run, score_row

CAPTIONS = 10
MEASURES = ("target", "caption")
CHOICE = Choice(measure="target")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    """Caption n: clean 0.1 n by target, corrupted 0.05 below for even n, 0.25 below for odd n."""
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=tuple(
            Caption(caption=f"cat {n}", subject="cat", attribute="object") for n in range(CAPTIONS)
        ),
        parts=(Part.TEXT_ENCODER,),
        measures=MEASURES,
        seeds=(0, 1),
    )
    made = make_run(tmp_path_factory.mktemp("runs") / "run", plan, components=2)

    def scores(row: IdentifiedUnit) -> list[dict]:
        number = int(row.unit.caption.caption.split()[-1])
        clean, effect = 0.1 * number, 0.25 if number % 2 else 0.05
        # One seed alone would pass 0.4 for caption 3, and fail it for caption 4.
        off = 0.15 if row.unit.seed else -0.15
        return [
            score_row(
                row, component.name, measure=measure, clean=clean + off + (measure == "caption"),
                corrupted=clean + off - effect + (measure == "caption"),
                patched=clean + off - effect + 0.1 * number + (measure == "caption"),
            )
            for component in make_components(2)
            for measure in MEASURES
        ]  # fmt: skip

    commit_all(made, scores)
    return made


def captions_read(run: TraceRun, known: str | None, min_te: float | None) -> dict[str, int]:
    only = CaptionFilter.parsed(known, min_te, measures=MEASURES)
    with opened_views(run, only=only) as views:
        rows = ranked(views, Choice()).to_pylist()
    return {row["measure"]: row["num_captions"] for row in rows}


@pytest.mark.parametrize(
    ("known", "min_te", "count"),
    [
        (None, None, 10),
        ("target:0.395", None, 6),
        ("caption:1.395", None, 6),
        (None, 0.1, 5),
        (None, -1.0, 10),
        ("target:0.395", 0.1, 3),
    ],
)
def test_captions_that_pass_are_counted(
    run: TraceRun, known: str | None, min_te: float | None, count: int
) -> None:
    assert captions_read(run, known, min_te) == dict.fromkeys(MEASURES, count)


def test_means_and_sentences_are_of_what_is_read_and_nothing_is_kept(run: TraceRun) -> None:
    only = CaptionFilter.parsed("target:0.395", 0.1, measures=MEASURES)
    with opened_views(run, only=only) as views:
        (row, *_) = ranked(views, CHOICE).to_pylist()
        said = verdicts(views, CHOICE)
    assert row["mean_ie"] == pytest.approx(0.1 * (5 + 7 + 9) / 3)
    assert row["mean_te"] == pytest.approx(0.25)
    assert (
        "Read are the 3 of 10 captions with a clean run of target >= 0.395 and a total effect "
        ">= 0.1." in said
    )
    with opened_views(run) as views:
        (row, *_) = ranked(views, CHOICE).to_pylist()
        assert not any(sentence.startswith("Read are") for sentence in verdicts(views, CHOICE))
    assert row["num_captions"] == CAPTIONS


def test_each_run_of_a_query_has_its_own_filter(run: TraceRun) -> None:
    sql = """
SELECT 'a' AS run, measure, count(DISTINCT caption_id) AS n FROM a.scores GROUP BY ALL
UNION ALL SELECT 'b', measure, max(num_captions) FROM b.ranking GROUP BY ALL
UNION ALL SELECT 'c', measure, max(num_captions) FROM c.ranking GROUP BY ALL
"""
    only = {
        "a": CaptionFilter.parsed("target:0.395", None, measures=MEASURES),
        "c": CaptionFilter.parsed(None, 0.1, measures=MEASURES),
    }
    with open_query({"a": run, "b": run, "c": run}, sql, only=only) as result:
        rows = [row for batch in result.batches for row in batch.to_pylist()]
    counts = {"a": 6, "b": CAPTIONS, "c": 5}
    assert {(row["run"], row["measure"]): row["n"] for row in rows} == {
        (name, measure): count for name, count in counts.items() for measure in MEASURES
    }


def test_no_caption_may_be_left(run: TraceRun) -> None:
    only = CaptionFilter.parsed("target:2", None, measures=MEASURES)
    with opened_views(run, only=only) as views:
        assert ranked(views, CHOICE).num_rows == 0
        assert "Read are the 0 of 10 captions" in verdicts(views, CHOICE)[0]


@pytest.mark.parametrize(
    ("known", "min_te", "message"),
    [
        ("clean-image:0.2", None, "'clean-image', which was not traced"),
        ("target", None, "MEASURE:SCORE"),
        ("target:high", None, "MEASURE:SCORE"),
        ("target:nan", None, "MEASURE:SCORE"),
        ("", None, "MEASURE:SCORE"),
        (None, float("inf"), "a number such as"),
    ],
)
def test_a_filter_that_says_nothing_is_refused(
    known: str | None, min_te: float | None, message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        CaptionFilter.parsed(known, min_te, measures=MEASURES)
    cat = {"caption": "a cat", "subject": "cat", "attribute": "object"}
    with pytest.raises(PlanError, match=message):
        make_plan({"captions": [cat], "measures": MEASURES, "known": known, "min_te": min_te})


def test_the_papers_ranking_is_the_mean_restored_score(run: TraceRun, tmp_path: Path) -> None:
    with opened_views(run) as views:
        rows = ranked_as_published(views, CHOICE, threshold=0.7).to_pylist()
        least = ranked_as_published(views, CHOICE, threshold=0.8, top=1).to_pylist()
    # The mean over captions of 0.2 n, less the effects.
    assert [row["mean_restored"] for row in rows] == [pytest.approx(0.9 - 0.15)] * 2
    assert [row["is_causal"] for row in rows + least] == [True, True, False]
    assert {row["num_captions"] for row in rows} == {CAPTIONS}


@pytest.mark.parametrize(
    ("threshold", "intervention", "message"),
    [(float("nan"), "restore", "a score such as"), (0.2, "corrupt", "ranks restored runs")],
)
def test_a_published_ranking_is_of_restored_runs(
    threshold: float, intervention: str, message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        check_threshold(threshold, Choice(intervention=intervention))
