"""The scores of one patched run of a unit."""

from dataclasses import asdict, dataclass

from schemas.intervention import Intervention, PatchKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One measure of a patched run and of its clean and corrupted runs."""

    component: str
    intervention: Intervention
    token: str
    """`all` in the denoiser; a token role or the position in a text encoder."""
    position: int | None
    """Text encoder: the first position that was patched."""
    token_text: str | None
    """Text encoder: the tokens that were patched, as the tokenizer writes them."""
    step_start: int
    step_stop: int
    path: str = "tokens"
    """The corrupted part of the subject: its text rows (`tokens`), the pooled embedding of the
    caption (`pooled`), or both."""
    patch_kind: PatchKind = PatchKind.STATE
    """The copied part of the component."""
    measure: str
    """The measure's name."""
    estimate: str = "exact"
    """Where the value is from: the image of a run that was sampled."""
    clean: float
    corrupted: float
    patched: float
    """Measure of the patched run, whatever the intervention."""

    def as_row(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)
