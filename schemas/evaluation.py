"""The evaluation of an edit: its plan, its units of work, the table of its images and SQL over it.

Every image is drawn twice from one latent, by the unedited model (`before`) and by the edited one
(`after`); one row holds both.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from schemas.columns import COLUMNS, COUNT, REAL, TEXT, TEXTS, column, estimate
from schemas.concept import ConceptKind
from schemas.content_id import content_id
from schemas.numerics import Numerics
from schemas.product import Product
from schemas.results import STILL_RECOGNISED

EVALUATION_VERSION = 4
"""Raised when a column or the meaning of one changes; part of every unit's id."""


class Group(StrEnum):
    """The aspect of an edit that a prompt tests."""

    CONCEPT = "concept"
    """Efficacy: the concept in a plain prompt."""
    PARAPHRASE = "paraphrase"
    """Efficacy: the concept in other words, colors and styles."""
    POSITION = "position"
    """Efficacy: the concept in other places of the prompt."""
    FORM = "form"
    """Efficacy: the concept's plural, other capitals, articles, possessive or listed forms."""
    GIVEN = "given"
    """Efficacy: prompts of the user's own that say the concept."""
    IMPLICIT = "implicit"
    """Prompts of the user's own that mean the concept without its name; they count apart."""
    KEPT = "kept"
    """Specificity: every other name of the concepts' kinds; the nearest are `neighbor` too."""
    OBJECT = "object"
    """Specificity: the object in prompts with a removed style or color."""
    STYLE = "style"
    """Specificity: the style in prompts with a removed concept."""
    COLOR = "color"
    """Specificity: the color in prompts with a removed concept."""
    UNRELATED = "unrelated"
    """Specificity: names of kinds that no concept has."""
    GENERAL = "general"
    """Quality: prompts of all kinds without a concept; no name is chosen."""


EFFICACY = (Group.CONCEPT, Group.PARAPHRASE, Group.POSITION, Group.FORM, Group.GIVEN)
"""Groups whose prompts say a concept that should be gone."""
NEIGHBOR = "neighbor"
"""The group of those names of `kept` that are nearest to a concept."""
NEIGHBORS_A_CONCEPT, NEIGHBORS_SHARE = 3, 3
"""Neighbors per concept, and the share of the kind's kept names that they may be: one in three."""


class EvaluationPrompt(BaseModel):
    """A prompt and the place in it that any name of a kind can take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Group
    text: str = Field(min_length=1)
    template: str | None = None
    """The text with `{name}` or `{article}` ("an owl") for the name; None where no name is
    chosen."""
    edited_template: str | None = None
    """Template that edited images are judged by, where it differs: once an update makes a cat a
    frog, the style of "a cat in the style of {name}" is judged on a frog."""
    kind: ConceptKind | None = None
    """The kind of `name`."""
    name: str | None = None
    shown: bool = False
    """Whether the prompt's images are kept for the picture."""


class Subject(BaseModel):
    """A concept, a name or a group of prompts that a unit draws with one seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    kind: ConceptKind | None = None
    """None for prompts of all kinds."""
    replacement: str | None = None
    """Replacement of an updated concept."""
    prompts: tuple[EvaluationPrompt, ...] = Field(min_length=1)


class EvaluationPlan(BaseModel):
    """Everything that determines an evaluation's rows, written once to its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edits: dict[str, str] = Field(min_length=1)
    """Content hash of each edit's delta by its name; the edits of a sweep share `before`."""
    model: str
    scorer: str
    concepts: dict[ConceptKind, tuple[str, ...]]
    """The edited concepts, by kind."""
    names: dict[ConceptKind, tuple[str, ...]]
    """Names that an image may be recognized as, including the concepts."""
    subjects: tuple[Subject, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(min_length=1)
    """Seeds of the initial latents."""
    numerics: Numerics
    rows: int = Field(default=8, ge=1)
    """Images that are drawn together. Recorded because the last bits of an image depend on it."""
    shown_seeds: int = Field(default=2, ge=0)
    """Seeds whose images are kept for the picture."""
    chunk_units: int = Field(default=1, ge=1)
    """Units that are committed together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationUnit:
    """One subject x seed, drawn and scored before and after."""

    subject: Subject
    seed: int
    is_shown: bool
    """Whether the images of shown prompts are kept."""


@dataclass(frozen=True, slots=True)
class EvaluationUnits(Product[EvaluationUnit]):
    """A plan's units in order, seed by seed, so that an unfinished run covers every subject."""

    plan: EvaluationPlan

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of seeds and subjects."""
        return len(self.plan.seeds), len(self.plan.subjects)

    def at(self, *place: int) -> EvaluationUnit:
        """Return a unit by the indexes of its seed and subject."""
        seed, subject = place
        return EvaluationUnit(
            subject=self.plan.subjects[subject],
            seed=self.plan.seeds[seed],
            is_shown=seed < self.plan.shown_seeds,
        )

    def ids(self, *, model_hash: str, scorer_hash: str) -> "EvaluationIds":
        """Return the units' ids: hashes of all that determines their rows."""
        shared = self.plan.model_dump(mode="json", exclude={"subjects", "seeds"})
        return EvaluationIds(
            units=self,
            shared=content_id([EVALUATION_VERSION, model_hash, scorer_hash, shared]),
            subjects=tuple(content_id(s.model_dump(mode="json")) for s in self.plan.subjects),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationIds(Product[str]):
    """The ids of a plan's units; what units share is hashed once."""

    units: EvaluationUnits
    shared: str
    subjects: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the units' axes."""
        return self.units.sizes

    def at(self, *place: int) -> str:
        """Return the id of a unit by the indexes of its seed and subject."""
        seed, subject = place
        return content_id([self.shared, self.subjects[subject], self.units.plan.seeds[seed]])


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """A pair of images of an edit, a prompt and a seed: a row of `IMAGES`."""

    unit_id: str
    edit: str
    subject: str
    subject_kind: str | None
    replacement: str | None
    nearest_concept: str | None
    nearness: float | None
    group: str
    prompt: str
    kind: str | None
    name: str | None
    seed: int
    chosen_before: str | None
    chosen_after: str | None
    clip_before: float
    clip_after: float
    similarity: float
    embedding_before: list[float] | None
    embedding_after: list[float] | None
    image_before: bytes | None
    image_after: bytes | None


REALS = pa.list_(pa.float32())

IMAGES = pa.schema(
    [
        COLUMNS["unit_id"],
        column("edit", TEXT, "name of the edit"),
        column("subject", TEXT, "the concept, name or group of prompts that is drawn"),
        column("subject_kind", TEXT, "kind of the subject: object, style, ...", nullable=True),
        column("replacement", TEXT, "replacement of an updated concept", nullable=True),
        column("nearest_concept", TEXT, "the concept nearest to a kept name", nullable=True),
        estimate("nearness", "the text encoder's cosine with that concept", unit="cosine"),
        column("group", TEXT, f"what the prompt measures: {', '.join(Group)}"),
        column("prompt", TEXT, "the prompt of the image"),
        column("kind", TEXT, "kind of `name`", nullable=True),
        column("name", TEXT, "the name that the image should be recognized as", nullable=True),
        COLUMNS["seed"],
        column("chosen_before", TEXT, "the name of the highest score, unedited", nullable=True),
        column("chosen_after", TEXT, "the name of the highest score, edited", nullable=True),
        column("clip_before", REAL, "the unedited image's cosine with its prompt", unit="cosine"),
        column("clip_after", REAL, "the edited image's cosine with its prompt", unit="cosine"),
        column("similarity", REAL, "cosine of the two images' embeddings", unit="cosine"),
        column("embedding_before", REALS, "CLIP embedding for CMMD, unedited", nullable=True),
        column("embedding_after", REALS, "CLIP embedding for CMMD, edited", nullable=True),
        column("image_before", pa.binary(), "PNG of the unedited image, if shown", nullable=True),
        column("image_after", pa.binary(), "PNG of the edited image, if shown", nullable=True),
    ],
    metadata={b"dqf.evaluation_version": str(EVALUATION_VERSION)},
)
"""One row per edit, prompt and seed. Embeddings are those of `general` prompts."""

_EMBEDDINGS = ("embedding_before", "embedding_after")
_LENGTH = "len(embedding_before) <> (SELECT max(len(embedding_before)) FROM part)"
_SOUND = " AND ".join(f"{e} IS NOT NULL AND isfinite(list_sum({e}))" for e in _EMBEDDINGS)
_COUNTED = " AND ".join(f"list_count({e}) = len(embedding_before)" for e in _EMBEDDINGS)
ODD_IMAGES = f"""
greatest(abs(clip_before), abs(clip_after), abs(similarity)) > 1.1
OR (image_before IS NULL) <> (image_after IS NULL) OR {_LENGTH} OR
"group" = '{Group.GENERAL}' AND NOT coalesce({_SOUND} AND {_COUNTED}, false)
"""
"""Condition for a row of the view `part` that no evaluation writes; a cosine may round beyond 1."""

_EFFICACY = ", ".join(f"'{group}'" for group in EFFICACY)

MARKED = f"""
SELECT *, "group" IN ({_EFFICACY}) AS is_efficacy,
  CASE WHEN "group" = '{Group.GENERAL}' THEN prompt
    ELSE concat_ws(' ', subject_kind, subject) END AS cluster,
  chosen_before = name AS before, chosen_after = name AS after,
  CASE WHEN replacement IS NOT NULL AND kind = subject_kind THEN chosen_after = replacement
    END AS as_replacement
FROM images
"""
"""Images with their outcomes; `cluster` is the unit that a bootstrap draws: names, not images."""

NEIGHBORS = f"""
WITH concepts AS (
  SELECT subject_kind, count(DISTINCT subject) AS num_concepts
  FROM images WHERE "group" IN ({_EFFICACY}) GROUP BY subject_kind)
SELECT subject, subject_kind FROM concepts JOIN (
  SELECT subject, subject_kind, max(nearness) AS nearness,
    row_number() OVER (PARTITION BY subject_kind ORDER BY max(nearness) DESC, subject) AS place,
    count(*) OVER (PARTITION BY subject_kind) AS num_kept
  FROM images WHERE "group" = '{Group.KEPT}' AND nearness IS NOT NULL
  GROUP BY subject, subject_kind) USING (subject_kind)
WHERE place <= least({NEIGHBORS_A_CONCEPT} * num_concepts, ceil(num_kept / {NEIGHBORS_SHARE}))
"""
"""The kept names nearest to the concepts of their kind."""

BY_CONCEPT = f"""
WITH marked AS ({MARKED}), own AS (
  SELECT edit, subject, subject_kind, any_value(replacement) AS replacement,
    count(DISTINCT prompt) AS prompts, count(*) AS images,
    count(*) FILTER (before) AS right_before, count(*) FILTER (before AND after) AS recognized,
    count(as_replacement) FILTER (before) AS replaceable,
    count(*) FILTER (as_replacement AND before) AS replaced
  FROM marked WHERE is_efficacy GROUP BY edit, subject, subject_kind),
kept AS (
  SELECT edit, nearest_concept AS subject, subject_kind, subject AS name,
    count(*) FILTER (before) AS right_before, count(*) FILTER (before AND after) AS right_after
  FROM marked WHERE "group" = '{Group.KEPT}' AND nearest_concept IS NOT NULL GROUP BY ALL),
near AS (
  SELECT edit, subject, subject_kind, count(*) AS neighbors,
    coalesce(list(name ORDER BY name) FILTER (2 * right_after < right_before), []) AS moved
  FROM kept WHERE right_before > 0 GROUP BY ALL)
SELECT own.edit, own.subject AS concept, own.subject_kind AS kind, replacement, prompts, images,
  right_before, recognized, replaceable, replaced, coalesce(neighbors, 0) AS neighbors,
  coalesce(moved, []) AS moved
FROM own LEFT JOIN near ON own.edit = near.edit
  AND own.subject = near.subject AND own.subject_kind = near.subject_kind
ORDER BY ALL
"""
"""Counts of each edit and concept, over the images that the unedited model draws right, and the
kept names nearest to it: `moved` are those that lose more than half of their right images."""

COUNTED = f"""
WITH marked AS ({MARKED}), near AS ({NEIGHBORS}), grouped AS (
  SELECT '{STILL_RECOGNISED}' AS "group", marked.* EXCLUDE "group" FROM marked WHERE is_efficacy
  UNION ALL BY NAME SELECT * FROM marked
  UNION ALL BY NAME SELECT '{NEIGHBOR}' AS "group", marked.* EXCLUDE "group"
  FROM marked SEMI JOIN near USING (subject, subject_kind) WHERE "group" = '{Group.KEPT}')
SELECT "group", cluster, count(*) AS images,
  count(before) AS choices, count(*) FILTER (before) AS before, count(*) FILTER (after) AS after,
  count(*) FILTER (before AND after) AS both,
  count(as_replacement) AS replacements, count(*) FILTER (as_replacement) AS as_replacement,
  count(*) FILTER (as_replacement IS NOT NULL AND before) AS replacements_before,
  count(*) FILTER (as_replacement AND before) AS both_replacement,
  sum(clip_before) AS clip_before, sum(clip_after) AS clip_after, sum(similarity) AS similarity
FROM grouped GROUP BY ALL ORDER BY ALL
"""
"""Counts and sums of each group and cluster, from which every share is computed."""

CONCEPTS = pa.schema(
    [
        column("edit", TEXT, "name of the edit"),
        column("concept", TEXT, "the concept that the edit should have removed or updated"),
        column("kind", TEXT, "its kind: object, style, ..."),
        column("replacement", TEXT, "replacement of an updated concept", nullable=True),
        column("prompts", COUNT, "prompts that say it"),
        column("images", COUNT, "edited images of these prompts"),
        column("right_before", COUNT, "those whose unedited image shows the concept"),
        column("recognized", COUNT, "those of `right_before` whose edited image still shows it"),
        column("replaceable", COUNT, "those of `right_before` that could show a replacement"),
        column("replaced", COUNT, "those whose edited image shows the replacement"),
        column("neighbors", COUNT, "kept names that have this concept as their nearest"),
        column("moved", TEXTS, "those that lose more than half of their right images"),
        estimate("still_recognised", "recognized / right_before", unit="share"),
    ]
)
"""The rows of the view `concepts`."""

VIEWS = {
    "concepts": f"""
SELECT *, CASE WHEN right_before > 0 THEN recognized / right_before END AS still_recognised
FROM ({BY_CONCEPT})
""",
}
"""The SELECTs of an evaluation's views over `images`."""
