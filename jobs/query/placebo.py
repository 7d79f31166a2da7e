"""Whether the control by another corrupted draw is a null, as it should be."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from jobs.query.noises import noise_text, under
from jobs.query.opened import Views
from jobs.query.rank import CHOSEN, Choice
from schemas.intervention import Intervention

CAPTION_MEANS = f"""
SELECT attribute, part, noise_sigmas, caption_id, avg(ie) AS ie
FROM caption_effects
WHERE intervention = '{Intervention.OTHER_DRAW}' AND {CHOSEN}
GROUP BY ALL ORDER BY ALL
"""
"""Each caption's effect of the control, on average over the states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placebo:
    """The mean effect of another draw's activations on one attribute and part under one noise,
    over its states."""

    attribute: str
    part: str
    noise: str
    """As `noise_text` writes it."""
    mean: float
    low: float
    high: float
    """Ends of the 95 % interval; NaN where there are too few captions for one."""

    @property
    def is_null(self) -> bool:
        """Whether the interval holds zero."""
        return self.low <= 0 <= self.high

    @property
    def sentence(self) -> str:
        """The result for the control, as a sentence."""
        about = (
            f"{self.attribute}, {self.part}{under(self.noise)}: activations of another corrupted "
            f"draw change the score by {self.mean:+.3f} on average over the states"
        )
        if np.isnan(self.low):
            return f"{about}; too few captions say whether that is zero."
        ends = f"[{self.low:+.3f}, {self.high:+.3f}]"
        if self.is_null:
            return f"{about} {ends}, which holds zero: this control is a null."
        return f"{about} {ends}, which leaves zero out: this control is not a null here."


def placebos(views: Views, choice: Choice) -> list[Placebo]:
    """Return the placebo of each attribute, part and noise for which another draw was traced."""
    if Intervention.OTHER_DRAW not in views.run.plan.interventions:
        return []
    # SciPy takes a second to import, which runs without this control save.
    from engine.statistics.inference import draws_of, mean_estimates

    effects = defaultdict[tuple[str, str, str], dict[str, float]](dict)
    for row in views.query(CAPTION_MEANS, choice.parameters).to_pylist():
        noise = noise_text(views.run, row["noise_sigmas"])
        effects[row["attribute"], row["part"], noise][row["caption_id"]] = row["ie"]
    found: list[Placebo] = []
    for (attribute, part, noise), by_caption in effects.items():
        means = mean_estimates(np.array([list(by_caption.values())]), draws_of(tuple(by_caption)))
        ends = {"low": float(means.low_S[0]), "high": float(means.high_S[0])}
        mean = float(means.mean_S[0])
        found.append(Placebo(attribute=attribute, part=part, noise=noise, mean=mean, **ends))
    return found
