"""The scores of one run of a unit."""

from dataclasses import asdict, dataclass

from schemas.intervention import Intervention


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One measure of one changed run beside that of its clean and corrupted runs."""

    component: str
    intervention: Intervention
    token: str
    """`all` for UNet components; a token role or the position for text-encoder components."""
    position: int | None
    """Text encoder: the first position that was changed."""
    token_text: str | None
    """Text encoder: the tokens that were changed, as the tokenizer writes them."""
    step_start: int
    step_stop: int
    against: str
    """The measure's name."""
    clean: float
    corrupted: float
    restored: float
    """Of the changed run, whatever the intervention."""

    def as_row(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)
