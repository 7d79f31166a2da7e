"""What an edit hands back and writes into its folder as `edit.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from engine.editing.solve import EditSettings
from schemas.concept import Concept
from schemas.numerics import Numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSite:
    """The component to edit, and why."""

    component: str
    run: str | None = None
    """The run whose ranking named it; None where the user did."""
    attribute: str | None = None
    """The attribute that was ranked; None for all pooled, or where the user named it."""
    mean_ie: float | None = None
    """Mean indirect effect of the component on the score against the target."""
    se_ie: float | None = None
    """Its standard error over captions; None where the run has one caption."""
    token: str | None = None
    """The token role at which it was restored."""
    ie_low: float | None = None
    ie_high: float | None = None
    """Its 95 % interval over captions; None where an end is unknown or has no bound."""
    num_captions: int | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether a run located it but the 95 % interval of its effect reaches zero."""
        if self.mean_ie is None:
            return False
        return self.ie_low is None or self.ie_low <= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptScores:
    """Mean CLIPScores (cosines) of the images of a concept's prompts, before and after."""

    concept: str
    target: str
    kind: str
    concept_before: float
    concept_after: float
    """Against the concept's text."""
    target_before: float
    target_after: float
    """Against the target's text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditReport:
    """One edit: what was changed, how, how fast, and what it did to images."""

    out: str
    model: str
    scorer: str
    numerics: Numerics
    """Of the images before and after."""
    located: EditSite
    concepts: tuple[Concept, ...]
    settings: EditSettings
    key_pairs: int
    kept_keys: int
    key_seconds: float
    """Collecting the keys of concepts and of what is kept."""
    solve_seconds: float
    relative_changes: Mapping[str, float]
    """Frobenius norm of dW over that of W0, by the weight's public name."""
    scores: tuple[ConceptScores, ...]
    """Empty where no images were asked for."""
    untouched_change: float | None
    """Mean change of the CLIPScore of untouched concepts against their own text."""

    def as_dict(self) -> dict[str, object]:
        """Return the report in plain types: the manifest of the edit's folder."""
        plain = asdict(self)
        settings = plain["settings"]
        settings["exactly"] = [c.model_dump(mode="json") for c in self.settings.exactly]
        return {
            **plain,
            "numerics": self.numerics.model_dump(mode="json"),
            "concepts": [c.model_dump(mode="json") for c in self.concepts],
        }
