"""Reading a file of prompts on which an edit is evaluated; every wrong line is named."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from jobs.input.concepts import listed, refuse_lines
from jobs.input.rows import Table
from schemas.concept import Concept, plain_text
from schemas.documents import first_message
from schemas.errors import ConceptError
from schemas.given_prompt import GivenPrompt

TABLE = Table(
    holds="prompt", required=("concept", "prompt"), optional=("kind",), error=ConceptError
)
"""Format of a file of prompts."""

Given = tuple[str, Concept]
"""A prompt and the edited concept that it asks for."""


def read_given(path: Path, concepts: Sequence[Concept]) -> tuple[Given, ...]:
    """Return the prompts of `path` in order, each with its concept among those that are edited.

    ConceptError names every line that is wrong: a concept that is not edited, a prompt that is
    given twice.
    """
    rows, problems = TABLE.read_all(path)
    given: list[Given] = []
    first: dict[tuple[str, str], int] = {}
    for line, row in rows:
        found = _given(row, concepts)
        if isinstance(found, str):
            problems.append((line, found))
            continue
        prompt, concept = found
        at = first.setdefault((f"{concept.kind} {concept.concept}", plain_text(prompt)), line)
        if at == line:
            given.append(found)
        else:
            problems.append((line, f"prompt {prompt!r} repeats line {at}"))
    refuse_lines(path, problems)
    return tuple(given)


def _given(row: Mapping[str, object], concepts: Sequence[Concept]) -> Given | str:
    """Return the prompt of a row with its concept, or what is wrong as text."""
    try:
        read = GivenPrompt.model_validate(row)
    except ValidationError as error:
        return first_message(error)
    named = [c for c in concepts if plain_text(c.concept) == plain_text(read.concept)]
    if not named:
        return f"concept {read.concept!r} is not edited: the edit has {listed(concepts)}"
    meant = [c for c in named if read.kind in (None, c.kind)]
    if not meant:
        return f"concept {read.concept!r} is edited as {named[0].kind}, not as {read.kind}"
    return read.prompt, meant[0]
