"""docs/findings.md: the results of the replication's runs, in sentences made by rules."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.replication.claims import CLAIMS, MOST, SHARED, Finding, Verdict
from bench.replication.correction import Judged, judged
from bench.replication.evidence import MEASURES, MIN_CAPTIONS, Evidence, total_effect
from bench.replication.runs import ROLES, RUN_TEXTS, text_from
from bench.replication.short import in_short
from bench.replication.tables import (
    depth_table,
    first_layers,
    interval,
    largest_shares,
    main_numbers,
    overlaps,
    paths_table,
    ranked,
    sets_table,
    spread,
    table,
    tokens_table,
)
from bench.replication.together import ENOUGH, HALF
from engine.model.defaults import default_sampling
from engine.model.registry import EMBEDDED
from jobs.runs.progress import progress_of
from schemas.component import Part
from schemas.short_names import short_name


@contextmanager
def opened_evidence(folder: Path) -> Iterator[list[Evidence]]:
    """Yield the evidence of each model that has a run in a folder."""
    with ExitStack() as stack:
        models = [
            stack.enter_context(Evidence.opened(folder, model, MEASURES[0])) for model in EMBEDDED
        ]
        yield [evidence for evidence in models if any(evidence.runs.values())]


def write_page(models: Sequence[Evidence], page: Path, figures: Sequence[tuple[str, str]]) -> None:
    """Write the page; `figures` are files in docs/images with what they show."""
    page.write_text("\n\n".join(_parts(models, figures)) + "\n")


def _parts(models: Sequence[Evidence], figures: Sequence[tuple[str, str]]) -> Iterator[str]:
    claims = judged(
        CLAIMS,
        {
            (evidence.model, measure): evidence.by(measure)
            for evidence in models
            for measure in MEASURES
        },
    )
    yield HEAD
    yield (
        "## In short\n\nOf each number the estimate alone: the intervals, some of them wide, are "
        "in the tables. An attribute is left out where its total effect is not clear."
    )
    yield from map(in_short, models)
    yield from _comparison(models, claims)
    yield from _claims(claims)
    yield from _together(models)
    yield from _paths(models)
    yield from _depth(models)
    yield from _components(models)
    yield from _figures(figures)
    yield from _runs(models)
    yield from _unsaid(models, claims)
    yield AGAIN


HEAD = """# Findings on two models

Do the claims of Basu et al. 2024 hold on models that its authors never saw, and on a transformer
as on a UNet? `emoji-sd` is a UNet with cross-attention to one text encoder, `emoji-dit` a joint
transformer with two text encoders and a pooled embedding; both learned the same drawings, and
both are traced on the same captions and scored by the same scorer. This page is written by
`python -m bench.replication report` from their runs and nothing else: numbers are computed, and
whether a claim "replicates", "does not replicate" or "is undecided" follows from the criterion next
to it. Intervals are of 95 %, over captions."""

AGAIN = """## Making this page again
```bash
python -m bench.replication trace     # half an hour on two cores; continues where it was cut short
python -m bench.replication report
```

[Method](method.md) has the definitions, [statistics](statistics.md) the intervals and tests,
[tracing](tracing.md) the interventions and sets, [limits](limits.md) the limits of every trace."""


def _comparison(models: Sequence[Evidence], claims: Judged) -> Iterator[str]:
    yield "## The comparison"
    yield table(
        ["claim", *(evidence.model for evidence in models)],
        [
            [
                claim.says,
                *(_outcomes(findings[evidence.model, MEASURES[0]]) for evidence in models),
            ]
            for claim, findings in claims
        ],
    )
    yield main_numbers(models)
    yield (
        "Shares are of the total effect, restored alone. *Together*: how many of the leading "
        f"components, restored together, bring back {ENOUGH:.0%}, on captions that they were not "
        "ranked on; in brackets the range that the intervals leave. *Text rows* and *pooled*: all "
        "the text's rows as they enter the denoiser, and the pooled embedding. *Depth*: to how "
        f"many depths, counted from the first, the text from there on still brings back {HALF:.0%}."
    )


def _outcomes(findings: Sequence[Finding]) -> str:
    """Return the verdicts of a claim on a model, each with what it is about."""
    named = {verdict: [f.about for f in findings if f.verdict is verdict] for verdict in Verdict}
    return "; ".join(f"**{v}**: {_listed(names)}" for v, names in named.items() if names) or "-"


def _listed(names: Sequence[str]) -> str:
    """Return names with commas between them; pairs, which have their own, with slashes."""
    return ", ".join(name.replace(", ", "/") for name in names)


def _claims(claims: Judged) -> Iterator[str]:
    yield "## The claims"
    for claim, by_key in claims:
        yield f"### {claim.says}\nCriterion: {claim.criterion}."
        yield table(
            ["model", "", f"by `{MEASURES[0]}`", "numbers", f"by `{MEASURES[1]}`"],
            [
                [model, f.about, f"**{f.verdict}**", f.numbers, str(other.verdict)]
                for (model, measure), findings in by_key.items()
                if measure == MEASURES[0]
                for f, other in zip(findings, by_key[model, MEASURES[1]], strict=True)
            ],
        )
    yield (
        f"`{MEASURES[0]}` is the score against a text that says the attribute and names the "
        f"object, `{MEASURES[1]}` against the whole caption. An attribute with fewer than "
        f"{MIN_CAPTIONS} captions, or whose corruption does not lower the score (interval of the "
        "total effect above zero), is not "
        f"judged. The bounds {MOST:.0%} and {SHARED:g} are choices. All judgments of all claims, "
        "models, attributes and scores are corrected together: q is Benjamini-Hochberg's over "
        "them, and a verdict with q of 0.05 or more is undecided."
    )


def _together(models: Sequence[Evidence]) -> Iterator[str]:
    yield "## How many components together"
    yield (
        "Components are ranked on one half of the captions, and the first 1, 2, 3, 5, ... are "
        f"restored (or corrupted) together on the other. Each cell of *restored* and *corrupted* "
        f"is the least of these sizes that brings back, or takes away, {ENOUGH:.0%} of the total "
        "effect, with the range of sizes that the intervals leave; `>`: not even the largest. "
        "Where every component of a denoiser adds its whole output, by state and by contribution "
        "are the same. Random sets are of the same size and kinds."
    )
    for evidence in models:
        yield f"**{evidence.model}**"
        yield sets_table(evidence) if evidence.sets else "Not traced."


def _paths(models: Sequence[Evidence]) -> Iterator[str]:
    yield "## Tokens and the pooled path"
    yield (
        "The text's rows as they enter the denoiser, all of them, and the pooled embedding, each "
        "restored while the other stays corrupted, or corrupted alone. A model without a pooled "
        "embedding has one path, which carries all."
    )
    for evidence in models:
        yield f"**{evidence.model}**"
        yield paths_table(evidence) if evidence.paths else "Not traced."
    yield (
        "Inside the text encoders: the first self-attention, of several text encoders all of them, "
        "restored at some tokens alone."
    )
    for evidence in models:
        if evidence.paths:
            yield f"**{evidence.model}**"
            yield tokens_table(evidence, ROLES)


def _depth(models: Sequence[Evidence]) -> Iterator[str]:
    yield "## Which depth of the text still matters"
    yield (
        "The text is restored, or corrupted, from a depth of the denoiser on, and what came before "
        "stays. In a UNet these are its cross-attentions from there on; in a joint transformer it "
        "is the text's stream after a block, which all later blocks read, and before the first "
        "the text's projection. A pooled embedding stays as it was. Shares of the total effect; "
        "their intervals are in the figure."
    )
    for evidence in models:
        if evidence.paths is None:
            yield f"**{evidence.model}**: not traced."
            continue
        entries = {each.name: each for each in evidence.paths.run.sets}
        depths = [entries[name] for n in range(len(entries)) if (name := text_from(n)) in entries]
        listed = ", ".join(
            f"{n}: {short_name(each.members[0].component.name)}" for n, each in enumerate(depths)
        )
        yield f"**{evidence.model}** (from {listed})"
        yield depth_table(evidence)


def _components(models: Sequence[Evidence]) -> Iterator[str]:
    for evidence in models:
        views = evidence.components
        yield f"## The components of {evidence.model}"
        if views is None:
            yield "Not traced."
            continue
        yield "What the first layer of the text encoder brings back, and takes away:"
        yield first_layers(evidence)
        yield "The leading components, text encoder at the last subject token:"
        yield ranked(evidence, views, Part.TEXT_ENCODER)
        yield "Denoiser:"
        yield ranked(evidence, views, Part.DENOISER)
        yield SPREAD
        yield spread(evidence)
        yield overlaps(evidence)
        yield ONE_PATH
        yield largest_shares(evidence)


SPREAD = (
    "In how many components the positive effects of restoring are. Effects of noise count too, so "
    "that a weak attribute looks more distributed than it is: the column *of noise* has the shares "
    "of components that noise alone would have. The number of causal components does not have this "
    "flaw, but grows with the captions."
)
ONE_PATH = (
    "How much is one path. The state of a cut point holds everything that came to it: that it "
    "brings an attribute back says that the attribute passes there, as all of it must, and not "
    "that it is kept there. What a resnet adds to its input, restored alone, is its own "
    "contribution. All text entries together bound what any component can bring back. Each cell "
    "is of the component with the largest effect among those of the column, chosen on the same "
    "captions, so that its share is somewhat too large."
)


def _figures(figures: Sequence[tuple[str, str]]) -> Iterator[str]:
    if figures:
        yield "## Figures"
    for file, text in figures:
        yield f"![{text}](images/{file})\n\n*{text}*"


def _runs(models: Sequence[Evidence]) -> Iterator[str]:
    yield "## The runs"
    lines: list[list[str]] = []
    for evidence in models:
        for name, views in evidence.runs.items():
            if views is None:
                continue
            plan, done = views.run.plan, progress_of(views.run)
            lines.append(
                [
                    evidence.model,
                    name,
                    f"{done.done - done.failed} of {done.total}",
                    ", ".join(plan.interventions),
                    ", ".join(plan.patches),
                    str(len(views.run.components)),
                    str(len(views.run.sets)),
                    f"{plan.numerics.steps}, guidance {plan.numerics.guidance:g}",
                    f"{len(plan.seeds)}, {plan.noise_draws}",
                    ", ".join(f"{noise:g} sigma" for noise in plan.numerics.sweep),
                ]
            )
    heads = ["model", "run", "units", "interventions", "patch", "components", "sets", "steps"]
    yield table([*heads, "seeds, draws", "noise"], lines)
    yield "\n".join(f"- *{name}*: {text}." for name, text in RUN_TEXTS.items())
    yield from _controls(models)
    yield "What the corruption takes away, by run:"
    yield table(
        ["model", "run", "attribute", "captions", "total effect"],
        [
            [evidence.model, name, attribute, str(row["n"]), interval(row, "te")]
            for evidence in models
            for name, views in evidence.runs.items()
            if views
            for attribute in evidence.attributes
            if (row := total_effect(views, attribute, evidence.measure))
        ],
    )


def _controls(models: Sequence[Evidence]) -> Iterator[str]:
    """Say how many captions of each attribute have the control."""
    for evidence in models:
        if evidence.components is None:
            continue
        captions = evidence.components.run.plan.captions
        matched = Counter(c.attribute for c in captions if c.counterfactual is not None)
        counts = ", ".join(f"{name} {matched[name]}" for name in evidence.attributes)
        lacking = [name for name in evidence.attributes if not matched[name]]
        without = f" The claims on {_listed(lacking)} have no control." if lacking else ""
        yield (
            f"{evidence.model}: captions with a matched one, another option of the attribute with "
            f"as many tokens: {counts}.{without}"
        )


def _unsaid(models: Sequence[Evidence], claims: Judged) -> Iterator[str]:
    """Say what the numbers leave open, and what no number here could say."""
    yield "## What this does not say"
    lines = [
        "Two small models of 64 x 64 pixels, whose scorer was trained on the same drawings: "
        "neither size nor training data are those of Stable Diffusion. A claim that fails here may "
        "hold there, and the other way round; and that the two differ may be due to anything in "
        "which they differ.",
        "Captions are made from templates with one kind of object each; intervals cover other "
        "objects, not other ways of asking.",
        "Sets are the first of a ranking of single effects. Components that suffice together, each "
        "of which does nothing alone, are not seen.",
        "A component's own layout is controlled for by the matched caption alone, which starts "
        "from the same latent.",
        *_of_runs(models),
    ]
    left = sum(
        finding.verdict is Verdict.OPEN
        for _, by_key in claims
        for (_, measure), findings in by_key.items()
        if measure == MEASURES[0]
        for finding in findings
    )
    lines.append(f"{left} of the judgments above are undecided; more captions may decide them.")
    yield "\n".join(f"- {line}" for line in lines)


def _of_runs(models: Sequence[Evidence]) -> Iterator[str]:
    """Yield what the runs leave open."""
    plans = {}
    for evidence in models:
        for name, views in evidence.runs.items():
            if views is None:
                continue
            plans[f"{evidence.model} {name}"] = views.run.plan
            if (done := progress_of(views.run)).done < done.total:
                yield (
                    f"The run {name} of {evidence.model} had {done.done} of {done.total} units "
                    "when this was made."
                )
    single = [n for n, plan in plans.items() if len(plan.seeds) * plan.noise_draws == 1]
    if single:
        yield (
            f"One seed and one draw ({_listed(single)}): what varies with them is in the "
            "spread over captions, and cannot be separated from it."
        )
    fewer = [
        n for n, plan in plans.items() if plan.numerics.steps < default_sampling(plan.model).steps
    ]
    if fewer:
        yield f"Fewer denoising steps than the models' own ({_listed(fewer)})."
