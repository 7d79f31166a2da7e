"""Differences between two edits: their concepts, settings and matrices."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.editing.delta import Delta, norm
from jobs.editing.whole import open_edit
from schemas.concept import Concept, plain_text
from schemas.documents import is_mapping
from schemas.manifest import EditManifest, Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference between two edits, or a matrix of either."""

    what: str
    """model, concept, setting or matrix."""
    name: str
    first: str | None
    second: str | None
    """Value in each edit; None where it has none."""
    distance: float | None = None
    """|W_A - W_B| / |W0| of a matrix; None where the originals differ."""


def diff_edits(first: Path, second: Path) -> list[Difference]:
    """Return the differences between two edits' folders; ConceptError: one is not an edit's
    folder."""
    (a, delta_a), (b, delta_b) = open_edit(first), open_edit(second)
    differences: list[Difference] = []
    if a.model_hash != b.model_hash:
        differences.append(Difference(what="model", name="model", first=a.model, second=b.model))
    differences += _concepts(a, b)
    differences += _settings(a, b)
    return [*differences, *_matrices((a, delta_a), (b, delta_b))]


def _concepts(a: EditManifest, b: EditManifest) -> Iterator[Difference]:
    of_a, of_b = ({plain_text(c.concept): c for c in m.concepts} for m in (a, b))
    for key in dict.fromkeys([*of_a, *of_b]):
        in_a, in_b = of_a.get(key), of_b.get(key)
        said_a, said_b = (None if c is None else _said(c) for c in (in_a, in_b))
        if said_a == said_b:
            continue
        shared = said_a.items() & said_b.items() if said_a and said_b else set[tuple[str, str]]()
        yield Difference(
            what="concept",
            name=(in_a or in_b or a.concepts[0]).concept,
            first=_listed(said_a, shared),
            second=_listed(said_b, shared),
        )


def _said(concept: Concept) -> dict[str, str]:
    return {
        "replacement": concept.replacement_text,
        "kind": concept.kind.value,
        "mode": concept.mode.value,
        "weight": _plain(concept.weight),
        **({"prompts": "|".join(concept.prompts)} if concept.prompts else {}),
        **({"forms": "|".join(concept.forms)} if concept.forms is not None else {}),
    }


def _listed(replacements: Mapping[str, str] | None, shared: set[tuple[str, str]]) -> str | None:
    if replacements is None:
        return None
    return ", ".join(
        f"{name} {value}" for name, value in replacements.items() if (name, value) not in shared
    )


def _settings(a: EditManifest, b: EditManifest) -> Iterator[Difference]:
    of_a, of_b = (dict(_flat(m.model_dump(mode="json")["settings"])) for m in (a, b))
    for name in dict.fromkeys([*of_a, *of_b]):
        if of_a.get(name) != of_b.get(name):
            yield Difference(what="setting", name=name, first=of_a.get(name), second=of_b.get(name))


def _flat(settings: Mapping[str, object], within: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if is_mapping(value):
            yield from _flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", _plain(value) if isinstance(value, float) else str(value)


def _plain(number: float) -> str:
    """Return all digits of a number, so that two numbers never read the same."""
    return repr(number).removesuffix(".0")


def _matrices(a: tuple[EditManifest, Delta], b: tuple[EditManifest, Delta]) -> Iterator[Difference]:
    of_a, of_b = ({m.name: m for m in manifest.matrices} for manifest, _ in (a, b))
    for name in dict.fromkeys([*of_a, *of_b]):
        yield Difference(
            what="matrix",
            name=name,
            first=_change(of_a.get(name)),
            second=_change(of_b.get(name)),
            distance=_distance((of_a.get(name), a[1]), (of_b.get(name), b[1])),
        )


def _change(matrix: Matrix | None) -> str | None:
    changed = matrix and f"{100 * matrix.relative_change:.2f}%, rank {matrix.rank}"
    return changed or None


def _distance(a: tuple[Matrix | None, Delta], b: tuple[Matrix | None, Delta]) -> float | None:
    changed = [
        (matrix, delta.weights[matrix.name]) for matrix, delta in (a, b) if matrix is not None
    ]
    if len(changed) < 2:
        # The other edit has the original matrix, so that the distance is this edit's own change.
        return changed[0][0].relative_change if changed else 0.0
    (first, weight_a), (second, weight_b) = changed
    if first.hash_before != second.hash_before:
        return None
    return norm(weight_a.double() - weight_b.double()) / first.norm_before
