"""Sentences of docs/findings.md that say in short what the runs of each model found."""

from collections.abc import Iterator, Mapping

from bench.replication.evidence import Evidence
from bench.replication.runs import POOLED, first_at
from bench.replication.tables import by_contribution, needed_size, path_share
from bench.replication.together import ENOUGH, HALF, Size, from_depth, last_depth
from jobs.query.opened import Views
from schemas.component import Part
from schemas.intervention import TokenRole


def in_short(evidence: Evidence) -> str:
    """Return a model's list of sentences, in Markdown."""
    return "\n".join([f"**{evidence.model}**\n", *(f"- {says}" for says in _sentences(evidence))])


def _sentences(evidence: Evidence) -> Iterator[str]:
    if found := _shares(evidence, first_at(TokenRole.LAST_SUBJECT)):
        yield (
            "Text encoder: the first self-attention alone, at the last subject token, brings back "
            f"{_least_to_most(found)}."
        )
    contributions = by_contribution(evidence)
    if evidence.sets and (sizes := _sizes(evidence, evidence.sets)):
        yield f"Denoiser, by state: {ENOUGH:.0%} comes back {_grouped(sizes)}."
    if contributions is not evidence.sets and contributions:
        sizes = _sizes(evidence, contributions)
        yield f"Denoiser, by contribution: {ENOUGH:.0%} comes back {_grouped(sizes)}."
    depths = {
        attribute: f"depth {last_depth(shares)[0]} of {len(shares)}"
        for attribute in evidence.attributes
        if (shares := from_depth(evidence, attribute, "restore"))
    }
    if depths:
        yield f"The text still brings {HALF:.0%} back up to {_grouped(depths)}."
    if found := _shares(evidence, POOLED):
        yield f"The pooled embedding alone brings back {_least_to_most(found)}."


def _shares(evidence: Evidence, name: str) -> dict[str, float]:
    """Return the share of the total effect that a set of the run of paths brings back, by
    attribute."""
    found = {a: path_share(evidence, name, a) for a in evidence.attributes}
    return {attribute: share.value for attribute, share in found.items() if share}


def _sizes(evidence: Evidence, views: Views) -> dict[str, str]:
    """Return how many leading components of the denoiser are enough, by attribute."""
    found = {a: needed_size(views, evidence, a, Part.DENOISER) for a in evidence.attributes}
    return {attribute: _components(size) for attribute, size in found.items() if size}


def _components(size: Size) -> str:
    if size.size is None:
        return f"with more than {size.largest} components"
    return f"with {size.size} component{'s' * (size.size != 1)}"


def _least_to_most(found: Mapping[str, float]) -> str:
    """Return the smallest and the largest share with their attributes."""
    ordered = sorted(found, key=lambda attribute: found[attribute])
    ends = [f"{found[name]:.0%} ({name})" for name in (ordered[0], ordered[-1])]
    return " to ".join(ends[: len(ordered)]) + " of the total effect"


def _grouped(texts: Mapping[str, str]) -> str:
    """Return each text once, with the attributes that it is true of."""
    groups: dict[str, list[str]] = {}
    for attribute, text in texts.items():
        groups.setdefault(text, []).append(attribute)
    return "; ".join(f"{text} ({', '.join(groups[text])})" for text in sorted(groups))
