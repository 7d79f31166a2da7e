"""The tables of docs/findings.md."""

from collections.abc import Sequence

from bench.replication.claims import firsts
from bench.replication.evidence import (
    Evidence,
    Row,
    concentration,
    overlap,
    rows,
    share_of_total,
    total_effect,
    unfit,
)
from bench.replication.intervals import Interval
from bench.replication.runs import POOLED, first_at, text_from
from bench.replication.together import Size, curve, enough, from_depth, last_depth
from jobs.query.opened import Views
from schemas.component import TEXT_ENTRIES, Part
from schemas.component_set import Curve
from schemas.intervention import PatchKind, TokenRole
from schemas.short_names import short_name

TOP = 3
"""Number of components that are listed per attribute."""
NONE = "-"
"""A cell about which nothing is known."""


def fit_of(evidence: Evidence, views: Views | None) -> list[str]:
    """Return the attributes of a run that can be judged."""
    return [a for a in evidence.attributes if not unfit(views, a, evidence.measure)]


def main_numbers(models: Sequence[Evidence]) -> str:
    """Return the comparison: of each attribute and model what its runs measured."""
    heads = [
        "attribute",
        "model",
        "total effect",
        "first self-attention, last subject token",
        "text encoder: together",
        "denoiser: together, by state",
        "by contribution",
        "text rows alone",
        "pooled alone",
        "text matters to depth",
    ]
    attributes = dict.fromkeys(a for evidence in models for a in evidence.attributes)
    lines = [
        [attribute, evidence.model, *_main_cells(evidence, attribute)]
        for attribute in attributes
        for evidence in models
    ]
    return table(heads, lines)


def _main_cells(evidence: Evidence, attribute: str) -> list[str]:
    views, measure = evidence.components, evidence.measure
    total = views and total_effect(views, attribute, measure)
    return [
        interval(total, "te") if total else NONE,
        _path(evidence, first_at(TokenRole.LAST_SUBJECT), attribute),
        needed(evidence.sets, evidence, attribute, Part.TEXT_ENCODER),
        needed(evidence.sets, evidence, attribute, Part.DENOISER),
        needed(by_contribution(evidence), evidence, attribute, Part.DENOISER),
        _path(evidence, text_from(0), attribute),
        _path(evidence, POOLED, attribute),
        depth_text(evidence, attribute),
    ]


def by_contribution(evidence: Evidence) -> Views | None:
    """Return the sets by contribution: where every component adds its whole output, those by
    state."""
    views = evidence.components
    has_own = views and any(c.has_contribution for c in views.run.components)
    return evidence.contributions if has_own else evidence.sets


def needed(
    views: Views | None,
    evidence: Evidence,
    attribute: str,
    part: Part,
    *,
    intervention: str = "restore",
) -> str:
    """Return how many leading components together bring enough back, or take enough away."""
    found = needed_size(views, evidence, attribute, part, intervention=intervention)
    return str(found or NONE)


def needed_size(
    views: Views | None,
    evidence: Evidence,
    attribute: str,
    part: Part,
    *,
    intervention: str = "restore",
) -> Size | None:
    """Return the least number of leading components that together are enough; None where nothing
    can be said."""
    if unfit(views, attribute, evidence.measure):
        return None
    return enough(curve(views, attribute, part, evidence.measure, intervention=intervention))


def _path(evidence: Evidence, name: str, attribute: str, intervention: str = "restore") -> str:
    return str(path_share(evidence, name, attribute, intervention) or NONE)


def path_share(
    evidence: Evidence, name: str, attribute: str, intervention: str = "restore"
) -> Interval | None:
    """Return the share of the total effect that a set of the run of paths brings back, or takes
    away; None where the run lacks it or nothing can be said."""
    views = evidence.paths
    if views is None or name not in {each.name for each in views.run.sets}:
        return None
    if unfit(views, attribute, evidence.measure):
        return None
    return share_of_total(views, name, attribute, evidence.measure, intervention=intervention)


def depth_text(evidence: Evidence, attribute: str) -> str:
    """Return to which depth the text still brings half back, of how many."""
    shares = from_depth(evidence, attribute, "restore")
    if not shares:
        return NONE
    count, least, most = last_depth(shares)
    span = "" if least == count == most else f" ({least} to {most})"
    return f"{count}{span} of {len(shares)}"


def sets_table(evidence: Evidence) -> str:
    """Return the least sizes of sets that are enough, and what random ones of that size do."""
    lines = []
    for attribute in fit_of(evidence, evidence.sets):
        for part, kind, views in (
            (Part.TEXT_ENCODER, PatchKind.STATE, evidence.sets),
            (Part.DENOISER, PatchKind.STATE, evidence.sets),
            (Part.DENOISER, PatchKind.CONTRIBUTION, evidence.contributions),
        ):
            if views is not None:
                lines.append(
                    [attribute, f"{part}, {kind}", *_set_cells(evidence, views, attribute, part)]
                )
    heads = ["attribute", "components", "restored", "corrupted", "first 1", "first 3", "largest"]
    return table([*heads, "random, largest"], lines)


def _set_cells(evidence: Evidence, views: Views, attribute: str, part: Part) -> list[str]:
    top = {row["size"]: row for row in curve(views, attribute, part, evidence.measure)}
    random = curve(views, attribute, part, evidence.measure, kind=Curve.RANDOM)
    largest = max(top, default=0)
    return [
        needed(views, evidence, attribute, part),
        needed(views, evidence, attribute, part, intervention="corrupt"),
        *(_recovery(top.get(size)) for size in (1, 3)),
        f"{largest}: {_recovery(top.get(largest))}",
        f"{random[-1]['size']}: {_recovery(random[-1])}" if random else NONE,
    ]


def _recovery(row: Row | None) -> str:
    if row is None or row["mean_recovery"] is None:
        return NONE
    return str(Interval.of(row, "mean_recovery", "recovery_low", "recovery_high"))


def paths_table(evidence: Evidence) -> str:
    """Return the shares that all text rows and the pooled embedding bring back and take away."""
    lines = [
        [
            attribute,
            *(
                _path(evidence, name, attribute, intervention)
                for name in (text_from(0), POOLED)
                for intervention in ("restore", "corrupt")
            ),
        ]
        for attribute in fit_of(evidence, evidence.paths)
    ]
    cases = [f"{name} {how}" for name in ("text rows", "pooled") for how in TURNED.values()]
    return table(["attribute", *cases], lines)


def tokens_table(evidence: Evidence, roles: Sequence[TokenRole]) -> str:
    """Return the shares that the first self-attentions bring back at each token."""
    lines = [
        [attribute, *(_path(evidence, first_at(role), attribute) for role in roles)]
        for attribute in fit_of(evidence, evidence.paths)
    ]
    return table(["attribute", *(role.value.replace("_", " ") for role in roles)], lines)


def depth_table(evidence: Evidence) -> str:
    """Return the shares that the text brings back and takes away, from each depth on."""
    lines = []
    for attribute in fit_of(evidence, evidence.paths):
        for intervention, done in TURNED.items():
            shares = from_depth(evidence, attribute, intervention)
            lines.append([attribute, done, *(f"{share.value:.2f}" for share in shares)])
    count = max((len(line) - 2 for line in lines), default=0)
    return table(["attribute", "", *(f"from {depth}" for depth in range(count))], lines)


TURNED = {"restore": "restored", "corrupt": "corrupted"}


def first_layers(evidence: Evidence) -> str:
    """Return how much the attention and the MLP of each text encoder's first layer restore and
    take, side by side."""
    views = evidence.components
    if views is None:
        return ""
    names = [c for first in firsts(views) for c in (first, first.replace("self_attn", "mlp"))]
    cases = [(name, intervention) for name in names for intervention in TURNED]
    return table(
        ["attribute", *(f"{short_name(name)} {TURNED[i]}" for name, i in cases)],
        [
            [
                attribute,
                *(
                    str(share_of_total(views, c, attribute, evidence.measure, intervention=i))
                    for c, i in cases
                ),
            ]
            for attribute in fit_of(evidence, views)
        ],
    )


def ranked(evidence: Evidence, views: Views, part: Part) -> str:
    """Return the leading components of each attribute: what they bring back, and what they take."""
    lines = []
    for attribute in evidence.attributes:
        survivors = evidence.states(views, attribute, part, view="causal_states")
        names = {row["component"] for row in survivors}
        taken = _taken(views, attribute, evidence.measure)
        for row in evidence.states(views, attribute, part)[:TOP]:
            lines.append(
                [
                    attribute,
                    str(row["rank"]),
                    short_name(row["component"]),
                    interval(row, "ie"),
                    "" if row["mean_te"] == 0 else f"{row['mean_ie'] / row['mean_te']:.2f}",
                    taken.get(row["component"], ""),
                    f"{row['q_causal']:.2g}",
                    "yes" if row["component"] in names else "no",
                ]
            )
    heads = ["attribute", "rank", "component", "indirect effect", "restored, of the total"]
    return table([*heads, "taken, corrupted", "q", "causal"], lines)


def _taken(views: Views, attribute: str, measure: str) -> dict[str, str]:
    """Return the share of the total effect that each component takes away when corrupted."""
    found = rows(
        views,
        f"FROM component_effects WHERE attribute = '{attribute}' AND measure = '{measure}' "
        "AND intervention = 'corrupt' AND patch_kind = 'state' AND mean_recovery IS NOT NULL",
    )
    return {row["component"]: f"{row['mean_recovery']:.2f}" for row in found}


def largest_shares(evidence: Evidence) -> str:
    """Return the share of the total effect that all text entries bring back, and the largest that a
    cut point's state, another state and a contribution do; "" without the run."""
    views = evidence.components
    fit = fit_of(evidence, views)
    if views is None or not fit:
        return ""
    columns = {
        "cut point's state": ("is_cut_point", PatchKind.STATE),
        "another state": ("NOT is_cut_point", PatchKind.STATE),
        "resnet's contribution": ("has_contribution", PatchKind.CONTRIBUTION),
    }
    return table(
        ["attribute", "all text entries", *(f"largest {head}" for head in columns)],
        [
            [
                attribute,
                str(share_of_total(views, TEXT_ENTRIES, attribute, evidence.measure)),
                *(
                    _largest(views, which, patch, attribute, evidence.measure)
                    for which, patch in columns.values()
                ),
            ]
            for attribute in fit
        ],
    )


def _largest(views: Views, which: str, patch: PatchKind, attribute: str, measure: str) -> str:
    """Return the component of the denoiser with the largest effect of those that a condition picks,
    and its share of the total effect."""
    found = rows(
        views,
        f"SELECT component FROM component_effects JOIN components USING (component, part) WHERE "
        f"{which} AND part = 'denoiser' AND patch_kind = '{patch}' AND attribute = '{attribute}' "
        f"AND measure = '{measure}' AND intervention = 'restore' AND component != '{TEXT_ENTRIES}' "
        "ORDER BY mean_ie DESC LIMIT 1",
    )
    if not found:
        return NONE
    name = found[0]["component"]
    return f"{short_name(name)} {share_of_total(views, name, attribute, measure, patch=patch)}"


def spread(evidence: Evidence) -> str:
    """Return in how many components of each part the effects of an attribute are, what noise alone
    would have, and how many are causal."""
    views = evidence.components
    lines = []
    for attribute in fit_of(evidence, views):
        for part in Part:
            row = views and concentration(views, attribute, part, evidence.measure)
            if not views or not row or row["effective_components"] is None:
                continue
            effective = Interval.of(row, "effective_components", "effective_low", "effective_high")
            is_known = row["noise_low"] is not None
            noise = f"{row['noise_low']:.2f} to {row['noise_high']:.2f}" if is_known else NONE
            causal = evidence.states(views, attribute, part, view="causal_states")
            lines.append(
                [
                    attribute,
                    part.value,
                    f"{effective} of {row['num_components']}",
                    f"{row['effective_share']:.2f}",
                    noise,
                    str(len(causal)),
                ]
            )
    heads = ["attribute", "part", "effective components", "share", "of noise", "causal"]
    return table(heads, lines)


def overlaps(evidence: Evidence) -> str:
    """Return how many causal components of the denoiser two attributes share."""
    views, fit = evidence.components, fit_of(evidence, evidence.components)
    pairs = [(a, b) for n, a in enumerate(fit) for b in fit[n + 1 :]]
    found = [views and overlap(views, a, b, evidence.measure) for a, b in pairs]
    return table(
        ["attributes", "causal components of each", "of both"],
        [
            [
                f"{row['attribute_a']}, {row['attribute_b']}",
                f"{row['num_a']}, {row['num_b']}",
                str(row["num_both"]),
            ]
            for row in found
            if row
        ],
    )


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, or that it has no line."""
    if not lines:
        return "Nothing here can be judged."
    body = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in body)


def interval(row: Row, name: str) -> str:
    """Return a mean of a row with its interval."""
    return str(Interval.of(row, f"mean_{name}", f"{name}_low", f"{name}_high"))
