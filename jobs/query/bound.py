"""The bound of a denoiser trace: what all text entries do together, and what may be compared."""

from dataclasses import dataclass

import numpy as np

from jobs.query.noises import noise_text, under
from jobs.query.opened import Views
from jobs.query.rank import CHOSEN, Choice
from jobs.runs.trace_run import TraceRun
from schemas.component import TEXT_ENTRIES, Component
from schemas.intervention import Intervention, PatchKind
from schemas.short_names import short_name

CAPTION_MEANS = f"""
SELECT attribute, intervention, noise_sigmas, array_agg(caption_id) AS captions,
  array_agg(ie) AS ie, array_agg(te) AS te
FROM (
  SELECT *, max(step_stop - step_start) OVER (PARTITION BY attribute, intervention) AS longest
  FROM caption_effects
  WHERE component = '{TEXT_ENTRIES}' AND {CHOSEN}
  ORDER BY caption_id)
WHERE step_stop - step_start = longest
GROUP BY ALL ORDER BY attribute, intervention DESC, noise_sigmas
"""
"""Each caption's effects of all text entries together, in the longest window."""
DOES = {
    Intervention.RESTORE.value: "restored together bring back",
    Intervention.CORRUPT.value: "corrupted together take away",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The share of the total effect that all text entries restore or take together, for one
    attribute under one noise."""

    attribute: str
    intervention: str
    noise: str
    """As `noise_text` writes it."""
    share: float
    """Mean indirect effect divided by the mean total effect."""
    low: float
    high: float
    """Ends of its 95 % interval; NaN where there are too few captions or no total effect."""

    @property
    def sentence(self) -> str:
        """The bound as a sentence."""
        if np.isnan(self.low + self.high):
            ends = "; too few captions, or too small a total effect, for an interval"
        else:
            ends = f" [{self.low:.2f}, {self.high:.2f}]"
        return (
            f"{self.attribute}, denoiser{under(self.noise)}: all text entries "
            f"{DOES[self.intervention]} {self.share:.2f} of the total effect{ends}, "
            "a bound for every component."
        )


def bounds(views: Views, choice: Choice) -> list[Bound]:
    """Return the bounds of each attribute and noise, where text entries were traced."""
    if all(component.name != TEXT_ENTRIES for component in views.run.components):
        return []
    # SciPy takes a second to import.
    from engine.statistics.inference import draws_of, ratio_interval

    found: list[Bound] = []
    for row in views.query(
        CAPTION_MEANS, {**choice.parameters, "patch_kind": PatchKind.STATE}
    ).to_pylist():
        ie_1C, te_1C = np.array([row["ie"]]), np.array([row["te"]])
        low_1, high_1 = ratio_interval(ie_1C, te_1C, draws_of(tuple(row["captions"])))
        of = {"attribute": row["attribute"], "intervention": row["intervention"]}
        of["noise"] = noise_text(views.run, row["noise_sigmas"])
        share = float(ie_1C.mean() / te_1C.mean()) if te_1C.mean() else float("nan")
        found.append(Bound(**of, share=share, low=float(low_1[0]), high=float(high_1[0])))
    return found


def comparisons(run: TraceRun, *, part: str | None) -> list[str]:
    """Return sentences on which effects of a run may be compared, and on its cut points."""
    sentences: list[str] = []
    for of_part in run.plan.parts:
        if part in (None, of_part.value):
            chosen = [c for c in run.components if c.part is of_part and c.name != TEXT_ENTRIES]
            sentences += _comparisons(of_part.value, chosen, run.plan.patches)
    return sentences


def _comparisons(
    part: str, components: list[Component], patches: tuple[PatchKind, ...]
) -> list[str]:
    if PatchKind.STATE not in patches:
        return []
    streams = [c for c in components if c.has_contribution]
    increments = [c for c in components if not c.has_contribution]
    sentences: list[str] = []
    if streams and increments:
        sentences.append(
            f"{part}: a restored {_kinds(streams)} holds everything that came to it, a restored "
            f"{_kinds(increments)} only what it adds: compare effects within a kind, or compare "
            "contributions (--patch contribution)."
        )
    if PatchKind.CONTRIBUTION in patches and streams:
        sentences.append(f"{part}: states and contributions are tested and ranked apart.")
    cuts = [short_name(c.name) for c in streams if c.is_cut_point]
    if cuts:
        listed = cuts[0] if len(cuts) == 1 else f"each of {len(cuts)} cut points, last {cuts[-1]},"
        sentences.append(f"{part}: the state of {listed} holds everything upstream of it.")
    return sentences


def _kinds(components: list[Component]) -> str:
    return " or ".join(dict.fromkeys(c.kind.value for c in components))
