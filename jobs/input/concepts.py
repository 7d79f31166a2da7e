"""Reading a concept file: CSV, JSON Lines, Parquet or YAML, every wrong line is named."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from pydantic import ValidationError

from jobs.input.rows import Problem, Table
from schemas.concept import OLD_REPLACEMENT, Concept, plain_text
from schemas.documents import first_message
from schemas.errors import ConceptError
from schemas.printable import LINE, printable, shown

TABLE = Table(
    holds="concept",
    required=("concept",),
    optional=("replacement", OLD_REPLACEMENT, "kind", "mode", "weight", "prompts", "forms"),
    error=ConceptError,
)
"""Format of a concept file."""
LISTED = 5
"""Number of edited concepts that a message names."""

Numbered = tuple[int, Concept]
"""A concept and its line in the file."""


def read_concepts(path: Path) -> tuple[Concept, ...]:
    """Return the concepts of `path` in order; ConceptError names every line that is wrong."""
    return tuple(concept for _, concept in read_numbered(path))


def read_numbered(path: Path) -> list[Numbered]:
    """Return the concepts of `path` in order, each with its line.

    ConceptError names every line that is wrong, one sentence each.
    """
    rows, problems = TABLE.read_all(path)
    numbered: list[Numbered] = []
    for line, row in rows:
        concept = _concept(row)
        if isinstance(concept, str):
            problems.append((line, concept))
        else:
            numbered.append((line, concept))
    refuse_lines(path, [*problems, *_repeats(numbered), *_chains(numbered)])
    return numbered


def check_concepts(concepts: Sequence[Concept]) -> None:
    """Raise ConceptError if there is none, one repeats another, or a replacement is edited."""
    if not concepts:
        raise ConceptError("there is no concept to edit: give one")
    for concept in concepts:
        if not isinstance(concept, Concept):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConceptError(f"give concepts as dqf.Concept(concept=...), not {shown(concept)}")
    numbered = list(enumerate(concepts, start=1))
    for number, wrong in (*_repeats(numbered, "concept"), *_chains(numbered, "concept")):
        raise ConceptError(f"concept {number}: {wrong}")


def listed(concepts: Sequence[Concept]) -> str:
    """Return the first names of concepts for a message."""
    names = ", ".join(concept.concept for concept in concepts[:LISTED])
    return names + (", ..." if len(concepts) > LISTED else "")


class WrongLines(ConceptError):
    """A concept file of which several lines are wrong."""

    has_lines = True


def refuse_lines(path: Path, problems: Iterable[Problem]) -> None:
    """Raise ConceptError if there are wrong lines: one sentence a line, LINE characters in all."""
    in_order = sorted(problems)
    if not in_order:
        return
    if len(in_order) == 1:
        line, wrong = in_order[0]
        raise ConceptError(f"{path}, line {line}: {wrong}")
    first = printable(f"{path} has {len(in_order)} problems:")
    lines = [printable(f"  line {line}: {wrong}") for line, wrong in in_order]
    ends = accumulate(len(line) + 1 for line in lines)
    fitting = max(1, sum(len(first) + end <= LINE for end in ends))
    more = [f"  and {len(lines) - fitting} more"] if len(lines) > fitting else []
    raise WrongLines("\n".join([first, *lines[:fitting], *more]))


def _concept(row: Mapping[str, object]) -> Concept | str:
    """Return the concept of a row, or its error as text."""
    try:
        return Concept.model_validate(row)
    except ValidationError as error:
        return first_message(error)


def _repeats(numbered: Sequence[Numbered], place: str = "line") -> Iterator[Problem]:
    seen: dict[str, Numbered] = {}
    for line, concept in numbered:
        first_at, first = seen.setdefault(plain_text(concept.concept), (line, concept))
        if first is concept:
            continue
        said = f"concept {concept.concept!r}"
        if _wish(first) == _wish(concept):
            yield line, f"{said} repeats {place} {first_at}"
        elif plain_text(first.replacement_text) == plain_text(concept.replacement_text):
            yield line, f"{said} conflicts with {place} {first_at}, which has other settings"
        else:
            yield line, f"{said} conflicts with {place} {first_at}, which has another replacement"


def _wish(concept: Concept) -> Concept:
    """Return the concept with its texts as a tokenizer reads them."""
    texts = {
        "concept": plain_text(concept.concept),
        "replacement": plain_text(concept.replacement_text),
    }
    return concept.model_copy(update=texts)


def _chains(numbered: Sequence[Numbered], place: str = "line") -> Iterator[Problem]:
    """Yield the lines whose replacement is itself edited, so that its look is unknown."""
    edited = {plain_text(concept.concept): line for line, concept in reversed(numbered)}
    for line, concept in numbered:
        at = edited.get(plain_text(concept.replacement_text))
        if at is not None:
            yield (
                line,
                f"concept {concept.concept!r} becomes {concept.replacement_text!r}, which "
                f"{place} {at} edits: choose another replacement, or drop one of the two",
            )
