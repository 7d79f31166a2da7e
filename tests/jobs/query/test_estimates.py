"""The statistics of a run: against plain Python over its scores, kept, and beside the catalog."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

import jobs.query.estimates
from jobs.editing.locate import locate
from jobs.query.catalog import CATALOG, write_catalog
from jobs.query.kept_statistics import FOLDER, damaged_statistics
from jobs.query.rank import Choice
from jobs.query.select import opened_views, run_query
from jobs.query.words import verdicts
from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun, create_run, open_run
from schemas.caption import Caption
from schemas.component import Component, Kind, Part
from schemas.concept import Concept, ConceptKind
from schemas.plan import TracePlan
from schemas.views import STATISTICS_VIEWS
from tests.made_up.runs import MANIFEST, commit_all, score_row

Effect = Mapping[str, Mapping[str, float | np.ndarray]]
EFFECT: Effect = {
    "object": {"a": 0.3, "b": 0.1, "c": 0.0, "d": -0.1},
    "style": {"a": 0.2, "b": 0.0, "c": 0.1, "d": 0.0},
}
"""True effects by attribute and component, of all captions or one by one."""
CONTROL = {"a": 0.1, "b": 0.1, "c": 0.0, "d": 0.0}
"""Those of the control from another caption: b has no more than it."""
SEEDS = (3, 70_000)


def make_run(path: Path, *, captions: int, seed: int = 0, effect: Effect = EFFECT) -> TraceRun:
    """Return a traced run; the last caption of an attribute lacks component d, one seed a draw."""
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=tuple(
            Caption(caption=f"{attribute} {n}", subject=attribute, attribute=attribute)
            for attribute in effect
            for n in range(captions)
        ),
        parts=(Part.TEXT_ENCODER,),
        measures=("target",),
        seeds=SEEDS,
        chunk_units=4,
    )
    components = [
        Component(
            name=name, part=Part.TEXT_ENCODER, kind=Kind.MLP, order=order, layer=order,
            num_parameters=1,
        )
        for order, name in enumerate(CONTROL)
    ]  # fmt: skip
    run = create_run(path, plan, MANIFEST, components, steps=50)
    generator = np.random.default_rng(seed)
    commit_all(run, lambda row: unit_scores(row, generator, captions, effect))
    return run


def unit_scores(
    row: IdentifiedUnit, generator: np.random.Generator, captions: int, effect: Effect
) -> list[dict]:
    unit = row.unit
    attribute, number = unit.caption.caption.split()
    clean, corrupted = 0.5 + 0.05 * generator.normal(), 0.1 + 0.05 * generator.normal()
    return [
        score_row(
            row,
            component,
            intervention=intervention,
            measure="target",
            clean=clean,
            corrupted=corrupted,
            patched=corrupted + mean[int(number)] + 0.05 * generator.normal(),
        )
        for component in unit.components
        if component != "d" or int(number) < captions - 1
        for intervention, mean in (
            ("restore", np.broadcast_to(effect[attribute][component], captions)),
            ("other-caption", np.broadcast_to(CONTROL[component], captions)),
        )
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return make_run(tmp_path_factory.mktemp("statistics") / "run", captions=20)


def caption_means(run: TraceRun, attribute: str, component: str, intervention: str) -> dict:
    """Return each caption's mean indirect and total effect, by plain Python."""
    found = defaultdict(list)
    for row in run_query(run, "FROM trials").to_pylist():
        if (row["attribute"], row["component"], row["intervention"]) == (
            attribute, component, intervention,
        ):  # fmt: skip
            found[row["caption_id"]].append(
                (row["patched"] - row["corrupted"], row["clean"] - row["corrupted"])
            )
    return {caption: np.mean(values, axis=0) for caption, values in found.items()}


def test_estimates_are_those_of_plain_python_and_scipy(run: TraceRun) -> None:
    rows = run_query(run, "FROM component_effects").to_pylist()
    assert len(rows) == 2 * 4 * 2
    for row in rows:
        means = caption_means(run, row["attribute"], row["component"], row["intervention"])
        ie, te = np.array(list(means.values())).T
        assert row["num_captions"] == len(ie) == (19 if row["component"] == "d" else 20)
        assert (row["num_seeds"], row["num_draws"]) == (2, 1)
        assert row["num_trials"] == 2 * len(ie)
        assert row["mean_ie"] == pytest.approx(ie.mean())
        assert row["se_ie"] == pytest.approx(stats.sem(ie))
        assert row["mean_te"] == pytest.approx(te.mean())
        assert row["mean_recovery"] == pytest.approx(ie.mean() / te.mean())
        for mean, low, high, values in (
            ("mean_ie", "ie_low", "ie_high", ie), ("mean_te", "te_low", "te_high", te),
        ):  # fmt: skip
            student = stats.t.interval(0.95, len(values) - 1, row[mean], stats.sem(values))
            assert row[low] <= student[0] + 1e-9
            assert row[high] >= student[1] - 1e-9
            assert (row[low], row[high]) == pytest.approx(student, abs=stats.sem(values))
        residual = stats.sem(ie - row["mean_recovery"] * te) / te.mean()
        assert row["recovery_low"] == pytest.approx(
            row["mean_recovery"] - 2.1 * residual, abs=residual
        )
        permuted = stats.permutation_test(
            (ie,), np.sum, permutation_type="samples", n_resamples=9999, rng=1
        )
        # Both are drawn; SciPy doubles one tail's share, so that its error is twice ours.
        assert row["p_value"] == pytest.approx(permuted.pvalue, abs=0.04)


def test_q_values_are_those_of_a_family(run: TraceRun) -> None:
    rows = run_query(run, "FROM component_effects").to_pylist()
    families = defaultdict(list)
    for row in rows:
        families[row["attribute"], row["intervention"]].append((row["p_value"], row["q_value"]))
    assert len(families) == 4
    for tests in families.values():
        p, q = zip(*tests, strict=True)
        assert q == pytest.approx(stats.false_discovery_control(p))


def test_ranks_are_tied_where_intervals_overlap(run: TraceRun) -> None:
    rows = run_query(run, "FROM ranking WHERE intervention = 'restore'").to_pylist()
    for row in rows:
        above = [
            o for o in rows
            if o["attribute"] == row["attribute"] and o["ie_low"] > row["ie_high"]
        ]  # fmt: skip
        assert row["rank"] == 1 + len(above)
    ranks = {(row["attribute"], row["component"]): row["rank"] for row in rows}
    assert [ranks["object", name] for name in "abcd"] == [1, 2, 3, 4]
    assert ranks["style", "b"] == ranks["style", "d"] == 3


def test_causal_states_survive_their_control(run: TraceRun) -> None:
    causal = run_query(run, "FROM causal_states").to_pylist()
    assert {(row["attribute"], row["component"]) for row in causal} == {
        ("object", "a"), ("style", "a"), ("style", "c"),
    }  # fmt: skip
    assert all(row["controls"] == ["other-caption"] for row in causal)
    controlled = {
        (row["attribute"], row["component"]): row
        for row in run_query(run, "FROM controlled_effects").to_pylist()
    }
    for (attribute, component), row in controlled.items():
        restored = caption_means(run, attribute, component, "restore")
        control = caption_means(run, attribute, component, "other-caption")
        difference = [restored[c][0] - control[c][0] for c in restored]
        assert row["mean_difference"] == pytest.approx(np.mean(difference))
        assert row["se_difference"] == pytest.approx(stats.sem(difference))
        assert row["difference_low"] < np.mean(difference) < row["difference_high"]
        assert row["control_ie"] == pytest.approx(np.mean([ie for ie, _ in control.values()]))
    assert controlled["object", "b"]["q_difference"] > 0.05
    assert controlled["object", "b"]["q_control"] < 0.05


def test_overlap_and_concentration(run: TraceRun) -> None:
    (overlap,) = run_query(run, "FROM overlap").to_pylist()
    assert (overlap["attribute_a"], overlap["attribute_b"]) == ("object", "style")
    assert (overlap["num_a"], overlap["num_b"], overlap["num_both"]) == (1, 2, 1)
    assert overlap["jaccard"] == pytest.approx(0.5)
    assert overlap["jaccard_low"] <= 0.5 <= overlap["jaccard_high"]
    for row in run_query(run, "FROM concentration").to_pylist():
        means = [
            np.mean([ie for ie, _ in caption_means(run, row["attribute"], c, "restore").values()])
            for c in CONTROL
        ]
        positive = np.maximum(means, 0)
        assert row["num_components"] == 4
        assert row["effective_components"] == pytest.approx(
            positive.sum() ** 2 / (positive**2).sum()
        )
        assert row["effective_low"] <= row["effective_components"] <= row["effective_high"]
        assert row["gini_low"] <= row["gini"] <= row["gini_high"]
        assert row["effective_share"] == pytest.approx(row["effective_components"] / 4)
        assert 0 < row["noise_low"] < row["noise_high"] <= 1


def test_attributes_are_compared_by_profile_whatever_their_strength(tmp_path: Path) -> None:
    strong = {"a": 0.3, "b": 0.2, "c": 0.0, "d": 0.0}
    weak = {name: effect / 3 for name, effect in strong.items()}
    turned = dict(zip(strong, reversed(strong.values()), strict=True))
    effect = {"strong": strong, "turned": turned, "weak": weak}
    found = {
        (row["attribute_a"], row["attribute_b"]): row
        for row in run_query(
            make_run(tmp_path / "run", captions=20, effect=effect), "FROM overlap"
        ).to_pylist()
    }
    assert found["strong", "weak"]["p_differs"] > 0.05
    assert found["strong", "turned"]["q_differs"] < 0.05
    assert found["turned", "weak"]["q_differs"] < 0.05
    alike, other = found["strong", "weak"], found["strong", "turned"]
    assert alike["similarity"] > 0.9 > 0.2 > other["similarity"]
    assert [row["q_differs"] for row in found.values()] == pytest.approx(
        stats.false_discovery_control([row["p_differs"] for row in found.values()])
    )


def said_of(run: TraceRun, attribute: str | None = None) -> list[str]:
    with opened_views(run) as views:
        return verdicts(views, Choice(measure="target", attribute=attribute))


def test_few_captions_find_nothing_and_say_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", captions=4)
    assert run_query(run, "FROM causal_states").num_rows == 0
    (row,) = run_query(
        run, "FROM ranking WHERE attribute = 'object' AND component = 'a' AND rank = 1 "
        "AND intervention = 'restore'",
    ).to_pylist()  # fmt: skip
    assert row["p_value"] == 0.125
    (sentence, *_) = said_of(run)
    assert "object, style" in sentence
    assert "with 4 captions" in sentence
    assert "0.062" in sentence


def test_verdicts_say_what_is_causal_and_how_surely(run: TraceRun) -> None:
    first, second, *limits = said_of(run)
    assert first.startswith("object, text-encoder: 1 of 4 states are causal")
    assert "other-caption" in first
    assert "led by a: +0.3" in first
    assert second.startswith("style, text-encoder: 2 of 4")
    few, together = limits
    assert "object, style need more captions: with fewer than 36" in few
    assert together.startswith("These are 2 families")
    assert "3 of the 3 causal states remain" in together
    (_, *limits) = said_of(run, "style")
    assert len(limits) == 1
    assert "families" not in limits[0]


def test_families_without_a_causal_state_share_a_sentence_after_the_found_ones(
    tmp_path: Path,
) -> None:
    nothing = dict.fromkeys("abcd", 0.0)
    effect = {"color": nothing, "object": {**nothing, "a": 0.5}, "style": nothing}
    first, second, *_ = said_of(make_run(tmp_path / "run", captions=10, effect=effect))
    assert first.startswith("object, text-encoder: 1 of 4 states are causal")
    assert second.startswith("color, text-encoder; style, text-encoder: no state is found causal")
    assert "(10 captions, least q " in second


def test_q_over_the_run_corrects_for_all_of_its_families(run: TraceRun) -> None:
    for intervention in ("restore", "other-caption"):
        rows = run_query(run, f"FROM ranking WHERE intervention = '{intervention}'")
        assert rows["q_run"].to_pylist() == pytest.approx(
            stats.false_discovery_control(rows["p_causal"].to_pylist())
        )


def test_a_claim_whose_interval_reaches_zero_says_so(tmp_path: Path) -> None:
    weak_C = 0.1 + 0.135 * np.linspace(-1.5, 1.5, 10)  # 2.3 standard errors above zero
    effect = {"object": {"a": 0.5, "b": 0.5, "c": weak_C, "d": 0.5}}
    run = make_run(tmp_path / "run", captions=10, effect=effect)
    unsure = run_query(run, "FROM causal_states WHERE ie_low <= 0")["component"].to_pylist()
    assert unsure == ["c"]
    said = said_of(run)
    assert any("the interval of c reaches zero though q is under 0.05" in line for line in said)


def test_one_caption_has_means_and_no_intervals(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", captions=1)
    for row in run_query(run, "FROM component_effects").to_pylist():
        assert row["mean_ie"] is not None
        assert row["ie_low"] is row["ie_high"] is row["se_ie"] is row["recovery_low"] is None
        assert row["p_value"] == 1


def names(run: TraceRun) -> set[str]:
    return {file.name for file in run.storage.files(FOLDER)}


def test_only_statements_that_read_them_make_statistics(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", captions=4)
    run_query(run, "SELECT count(*) FROM scores")
    assert names(run) == set()
    run_query(run, "SELECT max(mean_ie) FROM RANKING")
    assert len(names(run)) == 6


def test_kept_statistics_are_read_until_scores_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", captions=4)
    part = run.storage.read("parts/c00000003.parquet")
    run.storage.remove("parts/c00000003.parquet")
    before, kept = run_query(run, "FROM ranking"), names(run)
    with monkeypatch.context() as nothing_makes_them:
        nothing_makes_them.delattr(jobs.query.estimates, "make_statistics")
        assert run_query(run, "FROM ranking").equals(before)
        run.storage.create("parts/c00000003.parquet", part)
        with pytest.raises(ImportError):
            run_query(run, "FROM ranking")
    assert not run_query(run, "FROM ranking").equals(before)
    assert len(names(run)) == 6
    assert not names(run) & kept


def test_damaged_statistics_are_made_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", captions=4)
    before = run_query(run, "FROM ranking")
    (name,) = [name for name in names(run) if "ranking" in name]
    path = Path(run.location, name)
    content = bytearray(path.read_bytes())
    content[60] ^= 4
    path.write_bytes(content)
    assert damaged_statistics(run) == [name]
    assert run_query(run, "FROM ranking").equals(before)
    assert damaged_statistics(run) == []


def test_statistics_that_were_changed_are_made_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", captions=4)
    before = run_query(run, "FROM ranking")
    for name in names(run):
        path = Path(run.location, name)
        pq.write_table(pq.read_table(path).slice(1), path)  # it keeps the footer's entries
    assert set(damaged_statistics(run)) == names(run)
    assert run_query(run, "FROM ranking").equals(before)
    assert damaged_statistics(run) == []


def test_statistics_of_another_run_are_made_again(tmp_path: Path) -> None:
    run, other = (make_run(tmp_path / name, captions=n) for name, n in (("run", 4), ("b", 3)))
    before = run_query(run, "FROM ranking")
    run_query(other, "FROM ranking")
    for name in names(run):
        (theirs,) = [n for n in names(other) if n.split(".")[0] == name.split(".")[0]]
        Path(run.location, name).write_bytes(Path(other.location, theirs).read_bytes())
    assert set(damaged_statistics(run)) == names(run)
    assert run_query(run, "FROM ranking").equals(before)
    assert damaged_statistics(run) == []


def test_readers_at_once_agree(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", captions=4)
    found: list[pa.Table] = []
    threads = [
        threading.Thread(target=lambda: found.append(run_query(run, "FROM ranking ORDER BY ALL")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(table.equals(found[0]) for table in found)


def test_a_run_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", captions=4)
    Path(run.location, FOLDER).write_text("in the way, as root may write anywhere")
    assert run_query(run, "FROM ranking").num_rows == 16


def test_the_catalog_has_the_same_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", captions=6)
    write_catalog(run)
    monkeypatch.chdir(run.location)
    with duckdb.connect(CATALOG, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM ranking").fetchall() == [(0,)]
        for view in STATISTICS_VIEWS:
            ours = run_query(open_run(run.location), f"FROM {view} ORDER BY ALL")
            theirs = connection.sql(f"FROM {view} ORDER BY ALL").to_arrow_table()
            assert theirs.equals(ours)
    for file in Path(FOLDER).glob("*.empty.parquet"):
        file.with_name(file.name.replace("empty", "zzz")).write_bytes(file.read_bytes())
    with duckdb.connect(CATALOG, read_only=True) as connection:  # files of others do not count
        assert connection.execute("SELECT count(*) FROM ranking").fetchall() == [(16,)]


def test_locating_tells_its_uncertainty(run: TraceRun) -> None:
    one = locate(run.location, [Concept(concept="x", replacement="y", kind=ConceptKind.OBJECT)])
    (top,) = run_query(
        run, "FROM component_effects WHERE attribute = 'object' AND component = 'a' "
        "AND intervention = 'restore'",
    ).to_pylist()  # fmt: skip
    assert (one.component, one.token, one.num_captions) == ("a", "last_subject", 20)
    assert (one.ie_low, one.ie_high) == (top["ie_low"], top["ie_high"])
    assert not one.is_doubtful
    pooled = locate(run.location, [Concept(concept="x", replacement="y", kind=ConceptKind.ACTION)])
    assert (pooled.component, pooled.num_captions) == ("a", 40)
    assert pooled.mean_ie is not None
    assert pooled.se_ie is not None
    assert pooled.ie_low == pytest.approx(pooled.mean_ie - 1.96 * pooled.se_ie)
