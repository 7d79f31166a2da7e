"""The states that a plan traces exactly since a screened run ranks them first."""

from collections.abc import Collection, Iterable

from pydantic import BaseModel, ConfigDict, Field

from schemas.component import Part
from schemas.window import Window


def state_name(part: Part, component: str, *, window: Window, token: str) -> str:
    """Return a state's name in a plan: COMPONENT@START:STOP in the denoiser, COMPONENT@TOKEN in a
    text encoder."""
    where = f"{window[0]}:{window[1]}" if part is Part.DENOISER else token
    return f"{component}@{where}"


class ChosenStates(BaseModel):
    """The states of one attribute and part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: str
    part: Part
    top: tuple[str, ...] = Field(min_length=1)
    """The first of the screen's ranking, by `state_name`."""
    random: tuple[str, ...] = ()
    """States drawn from the others."""
    screened: int = Field(ge=1)
    """Number of states of the ranking."""

    @property
    def every(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.top, *self.random)


class ExactStates(BaseModel):
    """The states of a plan, and the screened run whose ranking chose them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen_from: str
    """Content hash of the plan of the screened run."""
    measure: str
    """The measure of the ranking; its intervention, kind of patch and noise are the plan's
    first."""
    ranked_captions: tuple[str, ...]
    """Ids of the captions of the ranking. The plan has none of them, nor does an estimate."""
    share: float = Field(gt=0, lt=1)
    """The share of the screened run's captions that the plan has."""
    chosen: tuple[ChosenStates, ...] = Field(min_length=1)

    @property
    def content(self) -> list[object]:
        """All that determines scores, for hashes."""
        return [[each.attribute, each.part, sorted(each.every)] for each in self.chosen]

    def of(self, attribute: str, part: Part) -> frozenset[str]:
        """Return the names of the states of an attribute and part."""
        return frozenset(
            name
            for each in self.chosen
            if (each.attribute, each.part) == (attribute, part)
            for name in each.every
        )

    def check(
        self,
        *,
        attributes: Collection[str],
        components: Collection[str],
        places: dict[Part, Collection[str]],
    ) -> None:
        """Raise ValueError unless every attribute and part has its states, once, and they are of
        the plan's components and of the part's `places`: windows or token roles."""
        groups = [(each.attribute, each.part) for each in self.chosen]
        if sorted(groups) != sorted((name, part) for name in set(attributes) for part in places):
            raise ValueError("exact_states needs the states of every attribute and part, once")
        for each in self.chosen:
            _refuse_twice(each.every)
            for name in each.every:
                component, _, where = name.partition("@")
                if component not in components or where not in places[each.part]:
                    raise ValueError(f"exact_states has {name!r}, which the plan does not trace")


def _refuse_twice(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"exact_states has {name!r} twice: leave one out")
        seen.add(name)
