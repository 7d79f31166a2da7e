"""docs/findings.md: the results of the replication's runs, in sentences made by rules."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

from bench.replication.claims import (
    CLAIMS,
    MIN_CAPTIONS,
    MOST,
    SHARED,
    Evidence,
    Verdict,
    concentration,
    overlap,
    short,
    unfit,
)
from bench.replication.correction import Judged, judged
from bench.replication.evidence import ATTRIBUTES, FIRST, MEASURES, ROLES, Row, rows
from bench.replication.tables import (
    controls,
    first_layer,
    interval,
    largest_shares,
    ranked,
    shares,
    table,
)
from engine.model.defaults import default_sampling
from jobs.query.opened import Views
from jobs.runs.progress import progress_of


def write_page(folder: Path, page: Path, figures: Sequence[tuple[str, str]]) -> None:
    """Write the page; `figures` are files in docs/images with what they show."""
    with ExitStack() as stack:
        by_score = {
            measure: stack.enter_context(Evidence.opened(folder, measure)) for measure in MEASURES
        }
        page.write_text("\n\n".join(_parts(by_score, figures)) + "\n")


def _parts(by_score: Mapping[str, Evidence], figures: Sequence[tuple[str, str]]) -> Iterator[str]:
    claims, evidence = judged(CLAIMS, by_score), by_score[MEASURES[0]]
    yield HEAD
    yield from _answer(claims)
    if layer := first_layer(evidence):
        yield "Share of the total effect that the text encoder's first layer brings back or takes:"
        yield layer
    yield from _claims(claims)
    yield from _runs(evidence)
    yield from _effects_taken(evidence)
    yield from _text(evidence)
    yield from _tokens(evidence)
    yield from _unet(evidence)
    yield from _one_path(evidence)
    yield from _figures(figures)
    yield from _unsaid(evidence, claims)
    yield AGAIN


HEAD = """# Findings on emoji-sd

Do the claims of Basu et al. 2024 hold on a model that its authors never saw? This page is
written by `python -m bench.replication report` from four runs and nothing else: numbers are
computed, and whether a claim "replicates", "does not replicate" or "is undecided" follows from
the criterion next to it. Intervals are of 95 %, over captions."""

AGAIN = """## Making this page again
```bash
python -m bench.replication trace     # about an hour on two cores; continues where it was cut short
python -m bench.replication report
```

[Method](method.md) has the definitions, [statistics](statistics.md) the intervals and tests,
[limits](limits.md) the limits of every trace."""


def _answer(claims: Judged) -> Iterator[str]:
    yield "## In short"
    lines = []
    for claim, findings in claims:
        judgments = findings[MEASURES[0]]
        outcomes = [
            f"**{verdict}** for {named}"
            for verdict in Verdict
            if (named := _listed([f.about for f in judgments if f.verdict is verdict]))
        ]
        lines.append(f"- *{claim.says}*: {', '.join(outcomes)}.")
    yield "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    """Return names with commas between them; pairs, which have their own, with semicolons."""
    return ("; " if any("," in name for name in names) else ", ").join(names)


def _claims(claims: Judged) -> Iterator[str]:
    yield "## The claims"
    for claim, findings in claims:
        yield f"### {claim.says}\nCriterion: {claim.criterion}."
        others = {f.about: f.verdict for f in findings[MEASURES[1]]}
        yield table(
            ["", f"by `{MEASURES[0]}`", "numbers", f"by `{MEASURES[1]}`"],
            [
                [f.about, f"**{f.verdict}**", f.numbers, others[f.about]]
                for f in findings[MEASURES[0]]
            ],
        )
    yield (
        f"`{MEASURES[0]}` is the score against a text that says the attribute and names the "
        f"object, `{MEASURES[1]}` against the whole caption. An attribute with fewer than "
        f"{MIN_CAPTIONS} captions, or whose corruption does not lower the score (interval of the "
        "total effect above zero), is not "
        f"judged. The bounds {MOST:.0%} and {SHARED:g} are choices. All judgments of all claims, "
        "attributes and scores are corrected together: q is Benjamini-Hochberg's over them, and a "
        "verdict with q of 0.05 or more is undecided."
    )


def _runs(evidence: Evidence) -> Iterator[str]:
    yield "## The runs"
    lines = []
    for name, views in _named(evidence):
        if views is None:
            lines.append([name, "not traced", *[""] * 6])
            continue
        plan, done = views.run.plan, progress_of(views.run)
        lines.append(
            [
                name,
                f"{done.done - done.failed} of {done.total}",
                ", ".join(plan.interventions),
                ", ".join(plan.tokens) if name != "UNet" else "",
                str(len(views.run.components)),
                f"{plan.numerics.steps}, guidance {plan.numerics.guidance:g}",
                f"{len(plan.seeds)}, {plan.noise_draws}",
                ", ".join(f"{noise:g} sigma" for noise in plan.numerics.sweep),
            ]
        )
    yield table(
        ["run", "units", "interventions", "tokens", "components", "steps", "seeds, draws", "noise"],
        lines,
    )


def _named(evidence: Evidence) -> list[tuple[str, Views | None]]:
    return [
        ("text encoder", evidence.text),
        ("layer x token", evidence.tokens),
        ("UNet", evidence.unet),
        ("contributions", evidence.contributions),
    ]


def _effects_taken(evidence: Evidence) -> Iterator[str]:
    yield "## What the corruption takes away"
    lines = []
    for name, views in _named(evidence):
        for row in _totals(views, evidence.measure) if views else []:
            lines.append([name, row["attribute"], str(row["n"]), interval(row, "te")])
    yield table(["run", "attribute", "captions", "total effect"], lines)


def _totals(views: Views, measure: str) -> list[Row]:
    return rows(
        views,
        "SELECT attribute, max(num_captions) AS n, max_by(mean_te, num_captions) AS mean_te, "
        "max_by(te_low, num_captions) AS te_low, max_by(te_high, num_captions) AS te_high "
        f"FROM component_effects WHERE measure = '{measure}' AND intervention = 'restore' "
        "GROUP BY attribute ORDER BY attribute",
    )


def _text(evidence: Evidence) -> Iterator[str]:
    yield "## Text encoder, last subject token"
    if evidence.text is None:
        yield "Not traced."
        return
    yield ranked(evidence, evidence.text)


def _tokens(evidence: Evidence) -> Iterator[str]:
    yield "## Layer x token"
    effects = evidence.token_effects
    if evidence.tokens is None or effects is None:
        yield "Not traced."
        return
    yield (
        f"Mean indirect effect of `{short(FIRST)}` at positions of each role: words one by one, "
        "then their mean; all pads together. What stands before the subject cannot see it: zero, "
        "as it must be."
    )
    measured = [a for a in ATTRIBUTES if effects.num_captions.get(a, 0) >= 3]
    if not measured:
        yield "Too few captions were traced when this was made."
        return
    yield table(
        ["attribute", "captions", *ROLES],
        [
            [
                a,
                str(effects.num_captions[a]),
                *(str(effects.effect(a, FIRST, r) or "") for r in ROLES),
            ]
            for a in measured
        ],
    )


def _unet(evidence: Evidence) -> Iterator[str]:
    yield "## UNet"
    views = evidence.unet
    if views is None:
        yield "Not traced."
        return
    fit = [a for a in ATTRIBUTES if not unfit(views, a, evidence.measure)]
    yield f"Of {len(views.run.components)} components, by what is asked of them:"
    yield table(
        [
            "attribute",
            "restored: above zero",
            "with another seed too",
            "beyond another caption",
            "both",
        ],
        [[attribute, *controls(views, attribute, evidence.measure)] for attribute in fit],
    )
    yield ranked(evidence, views)
    yield (
        "In how many components the positive effects of restoring are, controls aside. Effects of "
        "noise count too, so that a weak attribute looks more distributed than it is: the last "
        "column has the shares of the UNet's components that noise alone would have. The number "
        "of causal components does not have this flaw, but grows with the captions."
    )
    yield table(
        [
            "attribute",
            "effective components of the UNet",
            "of the text encoder",
            "share",
            "of noise",
        ],
        [
            [
                attribute,
                str(concentration(views, attribute, evidence.measure) or ""),
                str(
                    (evidence.text and concentration(evidence.text, attribute, evidence.measure))
                    or ""
                ),
                *shares(views, attribute, evidence.measure),
            ]
            for attribute in fit
        ],
    )
    yield table(
        ["attributes", "causal components of each", "of both"],
        [
            [
                f"{row['attribute_a']}, {row['attribute_b']}",
                f"{row['num_a']}, {row['num_b']}",
                str(row["num_both"]),
            ]
            for a, b in combinations(fit, 2)
            if (row := overlap(views, a, b, evidence.measure))
        ],
    )


def _one_path(evidence: Evidence) -> Iterator[str]:
    if not (largest := largest_shares(evidence)):
        return
    yield "## How much is one path"
    yield (
        "The state of a cut point holds everything that came to it: that it brings an attribute "
        "back says that the attribute passes there, as all of it must, and not that it is kept "
        "there. What a resnet adds to its input, restored alone, is its own contribution. All text "
        "entries together bound what any component can bring back. Each cell is the share of the "
        "total effect of the component with the largest effect among those of the column, chosen "
        "on the same captions, so that its share is somewhat too large."
    )
    yield largest


def _figures(figures: Sequence[tuple[str, str]]) -> Iterator[str]:
    for file, text in figures:
        yield f"![{text}](images/{file})\n\n*{text}*"


def _unsaid(evidence: Evidence, claims: Judged) -> Iterator[str]:
    """Say what the numbers leave open, and what no number here could say."""
    yield "## What this does not say"
    lines = [
        "One model of 32 x 32 pixels, whose scorer was trained on the same drawings: neither size "
        "nor training data are those of Stable Diffusion. A claim that fails here may hold there, "
        "and the other way round.",
        "Captions are made from templates with one object each; intervals cover other objects, not "
        "other ways of asking.",
        "A component is restored alone. Several that together would suffice, each of which does "
        "nothing alone, are not seen.",
    ]
    runs = dict(_named(evidence))
    for name, views in runs.items():
        if views is None:
            lines.append(f"The run {name} was not there: nothing is said that needs it.")
        elif (done := progress_of(views.run)).done < done.total:
            lines.append(
                f"The run {name} had {done.done} of {done.total} units when this was made."
            )
    plans = {name: views.run.plan for name, views in runs.items() if views}
    single = [n for n, plan in plans.items() if len(plan.seeds) * plan.noise_draws == 1]
    if single:
        lines.append(
            f"One seed and one draw ({', '.join(single)}): what varies with them is in the spread "
            "over captions, and cannot be separated from it."
        )
    short_runs = [
        n for n, plan in plans.items() if plan.numerics.steps < default_sampling(plan.model).steps
    ]
    if short_runs:
        lines.append(f"Fewer denoising steps than the model's own ({', '.join(short_runs)}).")
    open_claims = sum(
        finding.verdict is Verdict.OPEN for _, by in claims for finding in by[MEASURES[0]]
    )
    lines.append(
        f"{open_claims} of the judgments above are undecided; more captions may decide them."
    )
    yield "\n".join(f"- {line}" for line in lines)
