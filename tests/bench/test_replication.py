"""The replication report on made-up runs: it says what is true of them, and no more."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from bench.replication.claims import CLAIMS, Claim, Finding, Verdict
from bench.replication.correction import corrected, judged
from bench.replication.evidence import Evidence
from bench.replication.figures import draw_figures
from bench.replication.intervals import Interval
from bench.replication.page import opened_evidence, write_page
from bench.replication.runs import POOLED, paths_of, probes, run_folder, text_from, trace_model
from bench.replication.short import in_short
from bench.replication.tables import largest_shares, main_numbers
from bench.replication.together import Size, enough, from_depth, last_depth
from engine.model.components import list_components
from engine.model.opening import open_skeleton
from engine.model.registry import EMBEDDED
from jobs.input.probes import probe_set
from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun, create_run
from jobs.tracing.plan import check_plan
from schemas.component import PAPER_KINDS, TEXT_ENTRIES, Part
from schemas.intervention import allows
from schemas.plan import TracePlan
from tests.made_up.runs import MANIFEST, commit_all, score_row

Effect = Callable[[str, str, Sequence[str], str], float]
"""The share of the total effect by attribute, name of the component or set, the components that are
patched, and intervention."""
ATTRIBUTES = ("object", "style", "color")
HELD = 7
"""Components of the denoiser that hold an attribute, where the paper is right."""
TARGET = ("emoji-sd", "target")


def make_world(folder: Path, model: str, effect: Effect, *, each: int) -> None:
    """Write a model's runs with scores that an effect determines, and noise."""
    captions = probes(each, ATTRIBUTES)
    trace = partial(made_up, effect=effect)
    runs = list(trace_model(model, folder, captions=captions, steps=2, trace=trace))
    expected = ["components", "paths", "sets", *["contributions"] * (model == "emoji-sd")]
    assert [run.name for run in runs] == [run_folder(folder, model, n).name for n in expected]


def made_up(location: Path, plan: TracePlan, *, effect: Effect) -> TraceRun:
    """Return the run of a plan, with made-up scores."""
    planned = check_plan(plan)
    run = create_run(
        location, planned.plan, MANIFEST, planned.components, steps=2, sets=planned.sets
    )
    commit_all(run, partial(score_rows, run, effect=effect))
    return run


def score_rows(run: TraceRun, row: IdentifiedUnit, *, effect: Effect) -> Iterator[dict]:
    unit, noise = row.unit, np.random.default_rng(int(row.unit_id[:8], 16))
    by_name = {component.name: component for component in run.components}
    cases = list(product(unit.interventions, unit.patches))
    token = "last_subject" if unit.part is Part.TEXT_ENCODER else "all"
    patched = [
        (name, token, [name], intervention, patch)
        for name, (intervention, patch) in product(unit.components, cases)
        if allows(intervention, patch, by_name[name], unit.caption)
    ] + [
        (each.name, each.token, [m.component.name for m in each.members], intervention, patch)
        for each, (intervention, patch) in product(unit.sets, cases)
        if each.allows(intervention, patch, unit.caption)
    ]
    for name, token, names, intervention, patch in patched:
        share = effect(unit.caption.attribute, name, names, intervention.value)
        change = 0.2 * share + 0.01 * noise.standard_normal()
        for measure in run.plan.measures:
            yield score_row(
                row,
                name,
                intervention=intervention.value,
                patch_kind=patch.value,
                token=token,
                position=None,
                step_stop=2,
                measure=measure,
                clean=0.3,
                corrupted=0.1,
                patched=0.1 + change if intervention.changes_corrupted else 0.3 - change,
            )


@cache
def denoiser_names(model: str) -> list[str]:
    found = list_components(open_skeleton(model), PAPER_KINDS)
    return [c.name for c in found if c.part is Part.DENOISER and not c.is_dead]


def as_the_paper_says(
    attribute: str, name: str, patched: Sequence[str], intervention: str, *, model: str
) -> float:
    """One state of each text encoder, which share the effect; in the denoiser seven components, of
    its own each attribute, of which two together are enough."""
    if intervention == "matched":
        return 0.0
    if name.startswith("text-from"):
        return 0.85 - 0.15 * int(name.rpartition("-")[2])
    if name in (POOLED, TEXT_ENTRIES):
        return 0.15 if name == POOLED else 1.0
    if patched[0].startswith("text_encoder"):
        firsts = [each for each in patched if each.endswith(".layers.0.self_attn")]
        is_there = firsts and name not in ("first-eos", "first-pads")
        # All others take a little away: of states with no effect at all, noise would find some
        # to be causal, as often as the rate of false discoveries allows.
        return len(firsts) / (2 if model == "emoji-dit" else 1) if is_there else -0.05
    first = HELD * ATTRIBUTES.index(attribute)
    return min(1.0, 0.5 * len({*patched} & {*denoiser_names(model)[first : first + HELD]}))


def as_it_does_not(
    attribute: str, name: str, patched: Sequence[str], intervention: str, *, model: str
) -> float:
    """Every layer of the text encoder at every later token, a little more at the end; one place of
    the denoiser for all, and the pooled embedding."""
    if intervention == "matched":
        return 0.0
    if name.startswith("text-from") or name in (POOLED, TEXT_ENTRIES):
        return {POOLED: 0.7, TEXT_ENTRIES: 1.0}.get(name, 0.3)
    if patched[0].startswith("text_encoder"):
        return min(1.0, 0.2 * len(patched)) if name != "first-eos" else 0.6
    return 1.0 * (denoiser_names(model)[10] in patched)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models: what the paper says is true of one, and false of the other."""
    folder = tmp_path_factory.mktemp("world")
    for model, effect in (("emoji-sd", as_the_paper_says), ("emoji-dit", as_it_does_not)):
        make_world(folder, model, partial(effect, model=model), each=16)
    return folder


def verdicts(folder: Path, model: str) -> list[list[Verdict]]:
    with Evidence.opened(folder, model, "target") as evidence:
        found = judged(CLAIMS, {(model, "target"): evidence})
        return [[f.verdict for f in by_key[model, "target"]] for _, by_key in found]


def test_what_the_paper_says_replicates_where_it_is_true(world: Path) -> None:
    *claims, tokens = verdicts(world, "emoji-sd")
    assert claims == [[Verdict.YES] * 3] * 6, "three attributes, and three pairs"
    assert tokens == [], "a UNet has no pooled embedding"


@pytest.mark.slow
def test_it_replicates_on_a_model_with_two_text_encoders(tmp_path: Path) -> None:
    effect = partial(as_the_paper_says, model="emoji-dit")
    make_world(tmp_path, "emoji-dit", effect, each=16)
    assert verdicts(tmp_path, "emoji-dit") == [[Verdict.YES] * 3] * 7


def test_it_does_not_replicate_where_it_is_false(world: Path) -> None:
    causal, *others, differs, tokens = verdicts(world, "emoji-dit")
    assert causal == [Verdict.YES] * 3, "the first layer does carry a fifth of it"
    assert others == [[Verdict.NO] * 3] * 4
    assert differs.count(Verdict.YES) <= 1, "of three tests of noise at about 3 % each"
    assert tokens == [Verdict.NO] * 3


def test_sets_and_depths_are_counted(world: Path) -> None:
    with Evidence.opened(world, "emoji-sd", "target") as evidence:
        for attribute in ATTRIBUTES:
            shares = from_depth(evidence, attribute, "restore")
            expected = [0.85 - 0.15 * depth for depth in range(7)]
            assert [s.value for s in shares] == pytest.approx(expected, abs=0.04)
            assert last_depth(shares) == (3, 3, 3)
    with opened_evidence(world) as models:
        lines = {(line[1], line[2]): line for line in cells(main_numbers(models))}
    for attribute in ATTRIBUTES:
        of_unet = lines[attribute, "emoji-sd"]
        assert [cell.split()[0] for cell in of_unet[5:8]] == ["1", "2", "2"]
        assert of_unet[9:11] == ["-", "3 of 7"]
        of_dit = lines[attribute, "emoji-dit"][6:8]
        assert [cell.split()[0] for cell in of_dit] == ["1", "1"], "an interval may follow"


def test_a_model_in_short_is_what_was_made_up(world: Path) -> None:
    with Evidence.opened(world, "emoji-sd", "target") as evidence:
        said = in_short(evidence)
    assert "by state: 90% comes back with 2 components (object, style, color)." in said
    assert "by contribution: 90% comes back with 2 components (object, style, color)." in said
    assert "50% back up to depth 3 of 7 (object, style, color)." in said
    assert "pooled" not in said, "a UNet has no pooled embedding"
    with Evidence.opened(world, "emoji-dit", "target") as evidence:
        found = [share[:-1] for share in re.findall(r"\d+%", in_short(evidence).splitlines()[-1])]
    assert [int(share) for share in found] == pytest.approx([70, 70], abs=6)


def test_largest_shares_name_their_components(world: Path) -> None:
    with Evidence.opened(world, "emoji-dit", "target") as evidence:
        lines = cells(largest_shares(evidence))
    for line in lines:
        assert float(line[2].split()[0]) == pytest.approx(1.0, abs=0.05), "all text entries"
        assert line[3] == line[5] == "-", "no cut point is traced, nor a contribution"


def cells(table: str) -> list[list[str]]:
    """Return the cells of a Markdown table's lines."""
    return [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:]]


@pytest.mark.slow
def test_the_page_and_its_figures_are_written(world: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "findings-old.svg").touch()
    with opened_evidence(world) as models:
        write_page(models, tmp_path / "findings.md", draw_figures(models, images))
    text = (tmp_path / "findings.md").read_text()
    drawn = {file.name for file in images.glob("*.svg")}
    assert drawn == {
        f"findings-{name}.svg"
        for name in ("sets", "depth", *(f"{m}-{p}" for m, p in product(EMBEDDED, Part)))
    }
    assert all(f"(images/{name})" in text for name in drawn)
    assert "**replicates**: object, style, color | **replicates**: object, style, color" in text
    assert "| emoji-sd | components | 96 of 96 |" in text


def test_few_captions_tell_nothing_and_the_page_says_so(tmp_path: Path) -> None:
    plan = TracePlan.model_validate(
        {
            "scorer": "builtin:emoji-sd",
            "captions": probes(4, ATTRIBUTES),
            "measures": ["target", "caption"],
            **paths_of("emoji-sd"),
            "components": (),
        }
    )
    effect = partial(as_the_paper_says, model="emoji-sd")
    made_up(run_folder(tmp_path, "emoji-sd", "paths"), plan, effect=effect)
    with opened_evidence(tmp_path) as models:
        write_page(models, tmp_path / "findings.md", draw_figures(models, tmp_path / "images"))
    text = (tmp_path / "findings.md").read_text()
    assert "**replicates**" not in text
    assert "| emoji-sd | object | **is undecided** | 4 captions | is undecided |" in text
    assert "| emoji-sd | object | **is undecided** | not traced | is undecided |" in text


def test_runs_that_are_not_there_tell_nothing(tmp_path: Path) -> None:
    with opened_evidence(tmp_path) as models:
        assert models == []
        write_page(models, tmp_path / "findings.md", draw_figures(models, tmp_path / "images"))
    assert "replicates**" not in (tmp_path / "findings.md").read_text()


def test_paths_are_of_the_model() -> None:
    unet, transformer = (paths_of(model)["sets"] for model in ("emoji-sd", "emoji-dit"))
    assert unet["first-eos"] == ["text_encoder.layers.0.self_attn@eos"]
    assert transformer["first-eos"] == [*unet["first-eos"], "text_encoder_2.layers.0.self_attn@eos"]
    assert [len(unet[text_from(depth)]) for depth in range(7)] == [7, 6, 5, 4, 3, 2, 1]
    assert transformer[text_from(0)] == ["transformer.context_embedder"]
    assert transformer[text_from(5)] == ["transformer.transformer_blocks.4.stream_text"]
    assert POOLED in transformer
    assert POOLED not in unet


def test_captions_are_of_all_attributes_of_the_probe_set() -> None:
    attributes = {caption.attribute for caption in probe_set("emoji-sd")}
    assert {caption.attribute for caption in probes(1)} == attributes
    assert len(probes(20)) == 20 * len(attributes)


def curve_rows(*shares: tuple[float, float, float]) -> list[dict]:
    names = ("mean_recovery", "recovery_low", "recovery_high")
    return [
        {"size": size, **dict(zip(names, share, strict=True))}
        for size, share in zip((1, 2, 3, 5), shares, strict=False)
    ]


@pytest.mark.parametrize(
    ("shares", "expected", "text"),
    [
        ([(0.95, 0.91, 1.0)], Size(size=1, least=1, most=1, largest=1), "1"),
        (
            [(0.5, 0.4, 0.92), (0.93, 0.8, 1.1), (0.97, 0.91, 1.0)],
            Size(size=2, least=1, most=3, largest=3),
            "2 (1 to 3)",
        ),
        (
            [(0.5, 0.4, 0.6), (0.7, 0.6, 0.95)],
            Size(size=None, least=2, most=None, largest=2),
            "> 2 (2 to > 2)",
        ),
    ],
)
def test_sizes_that_are_enough(shares: list, expected: Size, text: str) -> None:
    found = enough(curve_rows(*shares))
    assert found == expected
    assert str(found) == text


def test_unknown_shares_are_enough_for_nothing() -> None:
    assert enough([{"size": 1, "mean_recovery": None}]) is None


def test_depths_count_as_long_as_all_before_them_do() -> None:
    shares = [
        Interval(value=value, low=value - 0.2, high=value + 0.2) for value in (0.9, 0.6, 0.2, 0.8)
    ]
    assert last_depth(shares) == (2, 1, 2)


def findings_of(p_values: list[float]) -> list[Finding]:
    return [
        Finding(about=str(n), verdict=Verdict.YES, numbers="IE", p_value=p)
        for n, p in enumerate(p_values)
    ]


def test_verdicts_are_corrected_over_claims_models_and_scores() -> None:
    claim = Claim(says="", criterion="", judge=lambda _: [])
    alone = corrected([(claim, {TARGET: findings_of([0.03])})])
    assert alone[0][1][TARGET][0].verdict is Verdict.YES
    many = {TARGET: findings_of([0.03, 1e-6]), ("emoji-dit", "caption"): findings_of([0.5] * 8)}
    (_, first), (_, second) = corrected([(claim, many), (claim, {TARGET: findings_of([np.nan])})])
    chance, sure = first[TARGET]
    assert (chance.verdict, sure.verdict) == (Verdict.OPEN, Verdict.YES)
    assert chance.numbers == "IE; q = 0.15"
    # What was not tested is no test of the others, and is never said to hold.
    assert (second[TARGET][0].verdict, second[TARGET][0].numbers) == (Verdict.OPEN, "IE")


def test_replications_of_noise_seldom_report_anything() -> None:
    """Of 200 pages of 48 judgments without any truth at most 5 % (and its error) have a verdict."""
    generator = np.random.default_rng(0)
    claim = Claim(says="", criterion="", judge=lambda _: [])
    pages = uncorrected = 0
    for _ in range(200):
        p_values = generator.uniform(size=48)
        uncorrected += (p_values < 0.05).any()
        found = corrected([(claim, {TARGET: findings_of(list(p_values))})])
        pages += any(f.verdict is Verdict.YES for f in found[0][1][TARGET])
    assert pages <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95) < uncorrected


def test_p_values_are_those_of_the_interval() -> None:
    skewed = Interval(value=0.6, low=0.5, high=0.9)
    assert skewed.p_value(0.5) == pytest.approx(0.05, abs=1e-3)
    assert skewed.p_value(0.9) == pytest.approx(0.05, abs=1e-3)
    assert skewed.p_value(0.6) == 1
    assert skewed.p_value(0.4) < 1e-3 < skewed.p_value(0.55)
    other = Interval(value=1.0, low=0.7, high=1.1)
    both = 1.96 * 0.4 / np.hypot(0.3, 0.3)
    assert skewed.p_value_of_equal(other) == pytest.approx(2 * norm.sf(both))
    assert np.isnan(Interval(value=1.0, low=np.nan, high=np.nan).p_value(0))
