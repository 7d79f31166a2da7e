"""How `dqf trace sets RUN` chose the sets of a plan."""

from pydantic import BaseModel, ConfigDict


class LocatedSets(BaseModel):
    """The ranking and the rounds that a plan's sets were chosen by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    """Content hash of the plan of the run whose ranking it was."""
    measure: str
    ranked_captions: tuple[str, ...]
    """Ids of the captions that were ranked on: those that the plan does not have."""
    seed: int
    """Seed of the random sets."""
    share: float
    """The share of the total effect that a greedy set reaches."""
    rounds: tuple[str, ...] = ()
    """Content hashes of the plans of the runs that the greedy sets were chosen by."""
