"""Interventions: which run is patched, what is copied, and where from."""

from enum import StrEnum

from schemas.caption import Caption
from schemas.component import TEXT_ENTRIES, TEXT_READERS, Component, Kind, Part


class Intervention(StrEnum):
    """One kind of patched run of causal mediation analysis."""

    RESTORE = "restore"
    """Corrupted run, activation of the clean run: is the component sufficient? The paper's."""
    CORRUPT = "corrupt"
    """Clean run, activation of the corrupted run: is the component necessary?"""
    ZERO = "zero"
    """Clean run, zeros: ablation."""
    MEAN = "mean"
    """Clean run, mean activation over the reference captions' clean runs: ablation."""
    RESAMPLE = "resample"
    """Clean run, activation of an unrelated caption's clean run from the same latent: ablation."""
    SWAP = "swap"
    """Clean run in which a cross-attention reads the corrupted conditioning: LocoGen's direct
    effect (Basu et al. 2024b)."""
    EMPTY_TEXT = "empty-text"
    """Clean run in which an attention reads the text of the empty caption."""
    SKIP = "skip"
    """Clean run in which a transformer's block is left out: its output is its input."""
    OTHER_SEED = "other-seed"
    """Control. Corrupted run, activation of the same caption's clean run from another latent: it
    has the attribute in another layout. An effect that goes was this image's layout."""
    OTHER_CAPTION = "other-caption"
    """Control. Corrupted run, activation of an unrelated caption's clean run from the same latent:
    it lacks the attribute. An effect that stays is not the attribute."""
    OTHER_DRAW = "other-draw"
    """Control. Corrupted run, activation of the same caption corrupted by another noise draw: it is
    distributed as the corrupted run's own, without the attribute. Its mean effect should be zero.
    """
    MATCHED = "matched"
    """Control. Corrupted run, activation of the clean run of the caption with its counterfactual in
    the subject's place, from the same latent: everything but the attribute's value is the same."""

    @property
    def changes_corrupted(self) -> bool:
        """Whether the corrupted run is changed; otherwise the clean run is."""
        return self is self.RESTORE or self in CONTROLS


READ_TEXTS = (Intervention.SWAP, Intervention.EMPTY_TEXT)
"""Interventions on the text that an attention reads."""
CONTROLS = (
    Intervention.OTHER_SEED,
    Intervention.OTHER_CAPTION,
    Intervention.OTHER_DRAW,
    Intervention.MATCHED,
)
"""Restorations whose source run shares something with the clean run, but not the attribute and the
latent both."""


class PatchKind(StrEnum):
    """The part of a component's output that is copied from the source runs."""

    STATE = "state"
    """Its whole output: with a residual connection, everything upstream too."""
    CONTRIBUTION = "contribution"
    """The increment that it adds to its input, which stays the patched run's own."""


class TokenRole(StrEnum):
    """Which positions of a text encoder are restored together."""

    LAST_SUBJECT = "last_subject"
    FIRST_SUBJECT = "first_subject"
    SUBJECT = "subject"
    """Every token of the subject."""
    EOS = "eos"
    PADS = "pads"
    ALL = "all"
    """Every position."""
    WORDS = "words"
    """Each token from the caption's first to EOS, one after another."""
    EACH = "each"
    """Each position, one after another."""


def allows(
    intervention: Intervention, patch_kind: PatchKind, component: Component, caption: Caption
) -> bool:
    """Return whether an intervention makes sense on a component for a caption.

    A swap and the empty text replace the text that an attention is given. The image's stream after
    a transformer's block names the block that is skipped. The text encoder knows no seed. A matched
    caption needs a counterfactual. The bound of all text entries is what they restore, and what
    they take.
    """
    if patch_kind is PatchKind.CONTRIBUTION and not component.has_contribution:
        return False
    if component.name == TEXT_ENTRIES:
        is_bound = intervention in (Intervention.RESTORE, Intervention.CORRUPT)
        return is_bound and patch_kind is PatchKind.STATE
    if intervention is Intervention.SKIP:
        return patch_kind is PatchKind.STATE and component.kind is Kind.STREAM_IMAGE
    if intervention in READ_TEXTS:
        reads_text = component.kind in TEXT_READERS and not component.in_single_stream
        return patch_kind is PatchKind.STATE and reads_text
    if intervention is Intervention.MATCHED:
        return caption.counterfactual is not None
    return intervention is not Intervention.OTHER_SEED or component.part is Part.DENOISER
