"""The replication report on made-up runs: it says what is true of them, and no more."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from bench.replication.claims import CLAIMS, Claim, Evidence, Finding, Verdict
from bench.replication.correction import corrected, judged
from bench.replication.evidence import FIRST, LAST, Interval, role_of
from bench.replication.figures import draw_figures
from bench.replication.page import write_page
from bench.replication.tables import largest_shares
from engine.model.components import list_components
from engine.model.opening import open_skeleton, open_tokenizer
from engine.model.tokens import find_subject
from jobs.input.captions import pick
from jobs.input.probes import probe_set
from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun, create_run
from schemas.component import PAPER_KINDS, TEXT_ENTRIES, Component, Part
from schemas.plan import TracePlan
from tests.made_up.runs import MANIFEST, commit_all, score_row

Effect = Callable[[str, str, str, str], float]
"""The share of the total effect by attribute, component, intervention and role of token."""
STEPS = 10
PLANS: dict[str, dict] = {
    "text": {"parts": [Part.TEXT_ENCODER], "interventions": ["restore", "other-caption"]},
    "tokens": {"parts": [Part.TEXT_ENCODER], "tokens": ["words", "pads"]},
    "unet": {"parts": [Part.DENOISER], "interventions": ["restore", "other-seed", "other-caption"]},
    "contributions": {"parts": [Part.DENOISER], "kinds": ["resnet"], "patches": ["contribution"]},
}
CUT = "unet.up_blocks.1.resnets.0"
"""The component that made-up runs say is a cut point."""


def make_world(folder: Path, effect: Effect, *, each: int) -> None:
    """Write the four runs with scores that an effect determines, and noise."""
    for name, fields in PLANS.items():
        captions = pick(probe_set("emoji-sd"), each=each)
        plan = TracePlan(
            scorer="builtin:emoji-sd",
            captions=captions,
            measures=("target",),
            chunk_units=500,
            **fields,
        )
        parts = [c for c in components() if c.part in plan.parts and c.kind in plan.kinds]
        if name == "unet":
            parts.append(replace(parts[0], name=TEXT_ENTRIES, has_contribution=False))
        run = create_run(folder / f"replication-{name}", plan, MANIFEST, parts, steps=STEPS)
        commit_all(run, partial(score_rows, run, effect=effect))


def score_rows(run: TraceRun, row: IdentifiedUnit, *, effect: Effect) -> Iterator[dict]:
    unit, plan = row.unit, run.plan
    span = find_subject(tokenizer(), unit.caption)
    noise = np.random.default_rng(int(row.unit_id[:8], 16))
    is_map = plan.tokens[0] == "words"
    positions = range(1, span.eos + 2) if is_map else [span.last]
    for component in unit.components:
        for intervention in plan.interventions:
            for position in positions:
                role = role_of(position, span)
                share = effect(unit.caption.attribute, component, intervention, role)
                for measure in plan.measures:
                    yield score_row(
                        row,
                        component,
                        intervention=intervention,
                        patch_kind=plan.patches[0].value,
                        token=str(position) if is_map else "last_subject",
                        position=position if unit.part is Part.TEXT_ENCODER else None,
                        step_stop=STEPS,
                        measure=measure,
                        clean=0.3,
                        corrupted=0.1,
                        patched=0.1 + 0.2 * share + 0.01 * noise.standard_normal(),
                    )


@cache
def tokenizer() -> Any:
    return open_tokenizer("emoji-sd")


@cache
def components() -> list[Component]:
    found = list_components(open_skeleton("emoji-sd"), PAPER_KINDS)
    return [replace(component, is_cut_point=component.name == CUT) for component in found]


@cache
def unet_names() -> list[str]:
    return [c.name for c in components() if c.part is Part.DENOISER]


def as_the_paper_says(attribute: str, component: str, intervention: str, role: str) -> float:
    """One state of the text encoder; in the UNet seven components, of its own each attribute."""
    if component.startswith("text_encoder"):
        is_state = component == FIRST and role == LAST and intervention == "restore"
        # All others take a little away: of states with no effect at all, noise would find some
        # to be causal, as often as the rate of false discoveries allows.
        return 0.9 if is_state else -0.05
    first = 7 * ("object", "style", "color", "viewpoint").index(attribute)
    holds = component in unet_names()[first : first + 7]
    return 0.5 if holds and intervention != "other-caption" else 0.0


def as_it_does_not(attribute: str, component: str, intervention: str, role: str) -> float:
    """Every layer of the text encoder at every later token; one place of the UNet for all."""
    if component.startswith("text_encoder"):
        return 0.2 + 0.2 * (role == "EOS") if intervention == "restore" else 0.0
    return 0.9 * (component == CUT)


def verdicts(folder: Path) -> list[list[Verdict]]:
    with Evidence.opened(folder, "target") as evidence:
        found = judged(CLAIMS, {"target": evidence})
        return [[finding.verdict for finding in by_score["target"]] for _, by_score in found]


def all_are(verdict: Verdict) -> list[list[Verdict]]:
    """Return the verdicts of every claim: four attributes, and of the last one six pairs."""
    return [[verdict] * 4] * 5 + [[verdict] * 6]


def test_what_the_paper_says_replicates_where_it_is_true(tmp_path: Path) -> None:
    make_world(tmp_path, as_the_paper_says, each=12)
    assert verdicts(tmp_path) == all_are(Verdict.YES)


def test_it_does_not_replicate_where_it_is_false(tmp_path: Path) -> None:
    make_world(tmp_path, as_it_does_not, each=12)
    causal, *others, differs = verdicts(tmp_path)
    assert causal == [Verdict.YES] * 4, "the first layer does carry a fifth of it"
    assert others == [[Verdict.NO] * 4] * 4
    assert differs.count(Verdict.YES) <= 1, "of six tests of noise at about 3 % each"
    with Evidence.opened(tmp_path, "target") as evidence:
        heads, _, *lines = largest_shares(evidence).splitlines()
    assert heads.count("largest") == 3
    for line in lines:
        _, _, entries, cut, other, added, _ = line.split("|")
        assert abs(float(entries.split()[0])) < 0.05, "no text entry has an effect here"
        for cell in (cut, added):
            assert cell.startswith(" `up_blocks.1.resnets.0` 0.")
            assert float(cell.split()[1]) == pytest.approx(0.9, abs=0.05)
        assert "up_blocks.1.resnets.0" not in other
        assert abs(float(other.split()[1])) < 0.05


@pytest.mark.slow
def test_few_captions_tell_nothing_and_the_page_says_so(tmp_path: Path) -> None:
    make_world(tmp_path, as_the_paper_says, each=4)
    assert verdicts(tmp_path) == all_are(Verdict.OPEN)
    page = tmp_path / "findings.md"
    write_page(tmp_path, page, draw_figures(tmp_path, tmp_path / "images"))
    text = page.read_text()
    assert "**replicates**" not in text
    assert "| object | **is undecided** | 4 captions |" in text
    assert len(list((tmp_path / "images").glob("*.svg"))) == 3


def test_runs_that_are_not_there_tell_nothing(tmp_path: Path) -> None:
    assert verdicts(tmp_path) == all_are(Verdict.OPEN)
    write_page(tmp_path, tmp_path / "findings.md", draw_figures(tmp_path, tmp_path / "images"))
    assert "not traced" in (tmp_path / "findings.md").read_text()


def findings_of(p_values: list[float]) -> list[Finding]:
    return [
        Finding(about=str(n), verdict=Verdict.YES, numbers="IE", p_value=p)
        for n, p in enumerate(p_values)
    ]


def test_verdicts_are_corrected_over_claims_and_scores() -> None:
    claim = Claim(says="", criterion="", judge=lambda _: [])
    alone = corrected([(claim, {"target": findings_of([0.03])})])
    assert alone[0][1]["target"][0].verdict is Verdict.YES
    many = {"target": findings_of([0.03, 1e-6]), "caption": findings_of([0.5] * 8)}
    (_, first), (_, second) = corrected([(claim, many), (claim, {"target": findings_of([np.nan])})])
    chance, sure = first["target"]
    assert (chance.verdict, sure.verdict) == (Verdict.OPEN, Verdict.YES)
    assert chance.numbers == "IE; q = 0.15"
    # What was not tested is no test of the others, and is never said to hold.
    assert (second["target"][0].verdict, second["target"][0].numbers) == (Verdict.OPEN, "IE")


def test_replications_of_noise_seldom_report_anything() -> None:
    """Of 200 pages of 48 judgments without any truth at most 5 % (and its error) have a verdict."""
    generator = np.random.default_rng(0)
    claim = Claim(says="", criterion="", judge=lambda _: [])
    pages = uncorrected = 0
    for _ in range(200):
        p_values = generator.uniform(size=48)
        uncorrected += (p_values < 0.05).any()
        found = corrected([(claim, {"target": findings_of(list(p_values))})])
        pages += any(f.verdict is Verdict.YES for f in found[0][1]["target"])
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


@pytest.mark.parametrize(
    ("position", "role"),
    [(0, "before the subject"), (5, LAST), (6, "words after it"), (11, "EOS"), (31, "pads")],
)
def test_roles_of_positions(position: int, role: str) -> None:
    (caption,) = [
        c for c in probe_set("emoji-sd")
        if c.caption == "a photo of a cat in the style of noto" and c.subject == "cat"
    ]  # fmt: skip
    span = find_subject(tokenizer(), caption)
    assert role_of(position, span) == role
