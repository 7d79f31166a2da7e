"""Prompts of a checkout of EMMA (Wei et al. 2026), a benchmark of concept erasure.

`prompts/DOMAIN/N_KIND.json` is a list of mappings from a concept, written without blanks, to
prompts; some files are one mapping. Read are the five kinds that ask for a concept: its name,
prefixes, variants, and short and long descriptions without it. What EMMA keeps is not read: an
evaluation has kept names of its own.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import cast

from pydantic import ValidationError

from engine.files import is_folder, read_json_file
from jobs.input.given_prompts import Given
from schemas.concept import Concept, ConceptKind
from schemas.documents import first_message, is_mapping
from schemas.errors import ConceptError
from schemas.given_prompt import GivenPrompt

EMMA = "emma:"
"""Beginning of the value of --prompts that names a checkout."""
DOMAINS: Mapping[str, ConceptKind] = MappingProxyType(
    {
        "art": ConceptKind.STYLE,
        "celebrity": ConceptKind.PERSON,
        "copyright": ConceptKind.OBJECT,
        "nsfw": ConceptKind.OBJECT,
        "object": ConceptKind.OBJECT,
    }
)
"""Folders of prompts, and the kind as which dqf edits their concepts."""
FILES = ("1_name.json", "2_prefix.json", "3_variant.json", "4_short.json", "5_long.json")
"""A domain lacks some of them."""


def read_emma(folder: Path, concepts: Sequence[Concept]) -> tuple[Given, ...]:
    """Return EMMA's prompts of edited concepts, each once, by domain and file.

    ConceptError: the folder is not a checkout, a file is not as described, or no edited concept is
    in it.
    """
    prompts = folder / "prompts"
    if not is_folder(prompts):
        raise ConceptError(f"{folder} is not a checkout of EMMA: it has no folder `prompts`")
    given: dict[Given, None] = {}
    for domain, kind in DOMAINS.items():
        edited = {_compact(c.concept): c for c in concepts if c.kind is kind}
        for path in (prompts / domain / name for name in FILES):
            if edited and os.path.lexists(path):
                given |= dict.fromkeys(_prompts(path, edited))
    if not given:
        raise ConceptError(f"{folder} has no prompt of a concept that is edited, of the same kind")
    return tuple(given)


def _prompts(path: Path, edited: Mapping[str, Concept]) -> Iterator[Given]:
    """Yield the prompts of a file's concepts that are edited."""
    document = read_json_file(path, error=ConceptError)
    entries = cast("list[object]", document) if isinstance(document, list) else [document]
    for number, entry in enumerate(entries, start=1):
        if not is_mapping(entry):
            raise ConceptError(f"{path}, entry {number}: not a mapping from a concept to prompts")
        for key, texts in entry.items():
            if not isinstance(texts, list):
                raise ConceptError(f"{path}, {key!r}: not a list of prompts")
            concept = edited.get(_compact(key))
            if concept is not None:
                prompts = cast("list[object]", texts)
                yield from ((_checked(path, key, text), concept) for text in prompts)


def _checked(path: Path, concept: str, text: object) -> str:
    try:
        return GivenPrompt.model_validate({"concept": concept, "prompt": text}).prompt
    except ValidationError as error:
        raise ConceptError(f"{path}, {concept!r}: {first_message(error)}") from error


def _compact(name: str) -> str:
    """Return a name's letters and digits: "salvador-dali" and "Salvador Dali" are one."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
