"""A run of several noises: no view, rank or sentence mixes them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.editing.locate import locate
from jobs.query.examples import example_sql
from jobs.query.noises import noise_text
from jobs.query.opened import Views
from jobs.query.placebo import placebos
from jobs.query.rank import (
    SHOWN,
    Choice,
    check_choice,
    last_ranks,
    leading,
    ranked,
    ranked_as_published,
    ranked_beyond,
    without_one_noise,
)
from jobs.query.select import opened_views, run_query
from jobs.query.words import verdicts
from jobs.runs.trace_run import TraceRun
from schemas.caption_filter import CaptionFilter
from schemas.concept import Concept
from schemas.errors import PlanError
from schemas.numerics import Numerics
from tests.made_up.noises import CAPTIONS, NOISES, make_swept_run
from tests.made_up.runs import make_components, make_plan, make_run

TARGET = Choice(measure="target", attribute="object")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return make_swept_run(tmp_path_factory.mktemp("runs") / "r")


@pytest.fixture(scope="module")
def views(run: TraceRun) -> Iterator[Views]:
    with opened_views(run) as views:
        yield views


@pytest.mark.parametrize(
    ("view", "effect", "kind", "captions"),
    [
        ("effects", "indirect_effect", "intervention", 1),
        ("caption_effects", "ie", "intervention", 1),
        ("component_effects", "mean_ie", "intervention", CAPTIONS),
        ("ranking", "mean_ie", "intervention", CAPTIONS),
        ("causal_states", "mean_ie", "intervention", CAPTIONS),
        ("controlled_effects", "mean_difference", "'restore'", CAPTIONS),
    ],
)
def test_every_effect_of_a_view_is_of_one_noise(
    views: Views, view: str, effect: str, kind: str, captions: int
) -> None:
    rows = views.query(
        f"SELECT component, noise_sigmas, {effect} AS effect FROM {view} "
        f"WHERE attribute = 'object' AND {kind} = 'restore'"
    ).to_pylist()
    names = [component.name for component in make_components(2)]
    found = sorted((row["component"], row["noise_sigmas"]) for row in rows)
    expected = [(n, noise) for n in names for noise in sorted(NOISES)]
    assert found == sorted(expected * (CAPTIONS // captions))
    for row in rows:
        total = 0.1 * row["noise_sigmas"]
        expected_effect = total / (1 + names.index(row["component"]))
        assert row["effect"] == pytest.approx(expected_effect, abs=0.005)


@pytest.mark.parametrize("view", ["overlap", "concentration"])
def test_attributes_are_described_noise_by_noise(views: Views, view: str) -> None:
    counted = views.query(f"SELECT noise_sigmas, count(*) AS n FROM {view} GROUP BY ALL")
    each = 1 if view == "overlap" else 2
    assert {row["noise_sigmas"]: row["n"] for row in counted.to_pylist()} == dict.fromkeys(
        NOISES, each
    )


def test_states_are_ranked_among_those_of_their_noise(views: Views) -> None:
    shown = (*SHOWN, "intervention")
    rows = ranked(views, TARGET, columns=shown).to_pylist()
    assert [(row["noise_sigmas"], row["rank"]) for row in rows] == [
        (noise, rank) for noise in sorted(NOISES) for rank in (1, 2)
    ]
    assert last_ranks(views, TARGET, rows) == [1, 2, 1, 2]
    for table in (
        leading(views, TARGET),
        ranked(views, TARGET, columns=shown, top=1),
        ranked_as_published(views, TARGET, threshold=0.1, top=1),
        ranked_beyond(views, Choice(attribute="object", intervention="other-draw"), top=1),
    ):
        assert table["noise_sigmas"].to_pylist() == sorted(NOISES)
        assert "noise_sigmas" in without_one_noise(views.run, table).column_names
    for noise in NOISES:
        chosen = ranked(views, Choice(noise_sigmas=noise), columns=shown)
        assert set(chosen["noise_sigmas"].to_pylist()) == {noise}


def test_noises_are_compared_caption_by_caption(views: Views) -> None:
    first, second = (component.name for component in make_components(2))
    rows = views.query(example_sql("noises", {"r": "run"})).to_pylist()
    found = {row["component"]: row for row in rows if row["attribute"] == "object"}
    assert len(rows) == 2 * len(found) == 4
    for name, share in ((first, 1.0), (second, 0.5)):
        row = found[name]
        assert (row["weak_noise"], row["strong_noise"]) == (0.5, 3.0)
        assert row["mean_difference"] == pytest.approx(0.25 * share, abs=0.005)
        assert (row["num_captions"], 0 < row["se_difference"] < 0.001) == (CAPTIONS, True)


def test_a_least_total_effect_is_asked_of_each_noise(run: TraceRun) -> None:
    # Totals are 0.3 and 0.05: their mean, 0.175, would pass and keep both.
    with opened_views(run, only=CaptionFilter(min_te=0.1)) as filtered:
        found = filtered.query("SELECT DISTINCT noise_sigmas FROM effects").to_pylist()
    assert found == [{"noise_sigmas": 3.0}]


def test_sentences_say_which_noise(views: Views) -> None:
    said = verdicts(views, TARGET)
    for noise in ("0.5", "3"):
        (verdict,) = (s for s in said if s.startswith(f"object, text-encoder, noise {noise}: 2 of"))
        assert f"({CAPTIONS} captions)" in verdict
    found = placebos(views, TARGET)
    assert sorted(placebo.noise for placebo in found) == ["0.5", "3"]
    assert all(f", noise {placebo.noise}: activations" in placebo.sentence for placebo in found)


def test_an_edit_goes_where_the_first_noise_says(run: TraceRun) -> None:
    site = locate(run.location, [Concept.model_validate({"concept": "cat", "kind": "object"})])
    assert site.mean_ie == pytest.approx(0.1 * NOISES[0], abs=0.005)
    assert site.num_captions == CAPTIONS


def test_a_noise_that_was_not_traced_names_those_that_were(run: TraceRun, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"run r has no noise 1: it has 3, 0\.5"):
        check_choice(run, Choice(noise_sigmas=1.0))
    plan = make_plan(units=2, captions=1, chunk_units=1)
    absolute = plan.model_copy(update={"numerics": Numerics(noise_absolute=0.1)})
    other = make_run(tmp_path / "absolute", absolute, components=1)
    with pytest.raises(PlanError, match="has no noise 3: it has none in sigmas"):
        check_choice(other, Choice(noise_sigmas=3.0))


def test_one_noise_is_not_said_nor_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", make_plan(units=2, captions=1, chunk_units=1), components=1)
    assert noise_text(run, 3.0) == ""
    units = run_query(run, "SELECT ordinal, noise_sigmas FROM units")
    assert set(units["noise_sigmas"].to_pylist()) == {3.0}
    assert without_one_noise(run, units).column_names == ["ordinal"]
