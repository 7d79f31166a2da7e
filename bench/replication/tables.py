"""The tables of docs/findings.md."""

from collections.abc import Sequence

from bench.replication.claims import Evidence, short, unfit
from bench.replication.evidence import ATTRIBUTES, FIRST, Interval, Row, rows, share_of_total
from jobs.query.opened import Views
from schemas.component import TEXT_ENTRIES

TOP = 5
"""Number of components that are listed per attribute."""
TURNED = {"restore": "restored", "corrupt": "corrupted"}


def ranked(evidence: Evidence, views: Views) -> str:
    """Return the leading components of each attribute: what they bring back, and what they take."""
    lines = []
    for attribute in ATTRIBUTES:
        survivors = evidence.states(views, attribute, view="causal_states")
        names = {row["component"] for row in survivors}
        taken = _taken(views, attribute, evidence.measure)
        for row in evidence.states(views, attribute)[:TOP]:
            lines.append(
                [
                    attribute,
                    str(row["rank"]),
                    f"`{short(row['component'])}`",
                    interval(row, "ie"),
                    "" if row["mean_te"] == 0 else f"{row['mean_ie'] / row['mean_te']:.2f}",
                    taken.get(row["component"], ""),
                    f"{row['q_value']:.2g}",
                    "yes" if row["component"] in names else "no",
                ]
            )
    heads = ["attribute", "rank", "component", "indirect effect", "restored, of the total"]
    return table([*heads, "taken, corrupted", "q", "survives"], lines)


def _taken(views: Views, attribute: str, measure: str) -> dict[str, str]:
    """Return the share of the total effect that each component takes away when corrupted."""
    found = rows(
        views,
        f"FROM component_effects WHERE attribute = '{attribute}' AND measure = '{measure}' "
        "AND intervention = 'corrupt' AND mean_recovery IS NOT NULL",
    )
    return {row["component"]: f"{row['mean_recovery']:.2f}" for row in found}


def first_layer(evidence: Evidence) -> str:
    """Return how much the first layer's two components restore and take, side by side; "" without
    an attribute that can be judged."""
    views = evidence.text
    fit = [a for a in ATTRIBUTES if not unfit(views, a, evidence.measure)]
    if views is None or not fit:
        return ""
    asked = [i for i in ("restore", "corrupt") if i in views.run.plan.interventions]
    cases = [(c, i) for c in (FIRST, FIRST.replace("self_attn", "mlp")) for i in asked]
    return table(
        ["attribute", *(f"`{short(c)}` {TURNED[i]}" for c, i in cases)],
        [
            [
                a,
                *(
                    str(share_of_total(views, c, a, evidence.measure, intervention=i))
                    for c, i in cases
                ),
            ]
            for a in fit
        ],
    )


def largest_shares(evidence: Evidence) -> str:
    """Return the share of the total effect that all text entries bring back, and the largest that a
    cut point's state, another state and a resnet's contribution do; "" without a run of the UNet.
    """
    unet, added = evidence.unet, evidence.contributions
    fit = [a for a in ATTRIBUTES if not unfit(unet, a, evidence.measure)]
    if unet is None or not fit:
        return ""
    columns = [
        ("cut point's state", unet, "is_cut_point"),
        ("another state", unet, "NOT is_cut_point"),
        *([("resnet's contribution", added, "has_contribution")] if added else []),
    ]
    return table(
        ["attribute", "all text entries", *(f"largest {head}" for head, *_ in columns)],
        [
            [
                attribute,
                str(share_of_total(unet, TEXT_ENTRIES, attribute, evidence.measure)),
                *(
                    _largest(views, which, attribute, evidence.measure)
                    for _, views, which in columns
                ),
            ]
            for attribute in fit
        ],
    )


def _largest(views: Views, which: str, attribute: str, measure: str) -> str:
    """Return the component with the largest effect of those that a condition picks, and its share
    of the total effect."""
    found = rows(
        views,
        f"SELECT component FROM component_effects JOIN components USING (component) WHERE {which} "
        f"AND attribute = '{attribute}' AND measure = '{measure}' AND intervention = 'restore' "
        f"AND component != '{TEXT_ENTRIES}' ORDER BY mean_ie DESC LIMIT 1",
    )
    name = found[0]["component"]
    return f"`{short(name)}` {share_of_total(views, name, attribute, measure)}"


def shares(views: Views, attribute: str, measure: str) -> list[str]:
    """Return an attribute's effective share of the components, and between which noise's are."""
    (row,) = rows(
        views,
        f"FROM concentration WHERE attribute = '{attribute}' AND measure = '{measure}'",
    )
    if row["noise_low"] is None:
        return ["", ""]
    return [f"{row['effective_share']:.2f}", f"{row['noise_low']:.2f} to {row['noise_high']:.2f}"]


def controls(views: Views, attribute: str, measure: str) -> list[str]:
    """Return how many components have an effect, and keep it next to each control."""
    where = f"attribute = '{attribute}' AND measure = '{measure}'"
    (restored,) = rows(
        views,
        f"SELECT count(*) AS n FROM component_effects WHERE {where} AND intervention = 'restore' "
        "AND q_value < 0.05 AND mean_ie > 0",
    )
    counts = []
    for control, name, value in (
        ("other-seed", "control", "control_ie"),
        ("other-caption", "difference", "mean_difference"),
    ):
        (row,) = rows(
            views,
            f"SELECT count(*) AS n FROM controlled_effects WHERE {where} AND control = '{control}' "
            f"AND q_{name} < 0.05 AND {value} > 0",
        )
        counts.append(str(row["n"]))
    (both,) = rows(views, f"SELECT count(*) AS n FROM causal_states WHERE {where}")
    return [str(restored["n"]), *counts, str(both["n"])]


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    body = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in body)


def interval(row: Row, name: str) -> str:
    """Return a mean of a row with its interval."""
    return str(Interval.of(row, f"mean_{name}", f"{name}_low", f"{name}_high"))
