"""Effects at the tokens of captions: by place in all captions, and by word of one."""

import re
from collections.abc import Sequence
from typing import Any

from jobs.query.noises import with_noise_texts
from jobs.query.opened import Views
from jobs.report.figures.labels import Place, places
from schemas.caption import Caption
from schemas.component import Component
from schemas.errors import StoreError
from schemas.printable import shown

Row = dict[str, Any]

PADS = 9
"""All pads from this one on share one place."""

# A token's place in its caption is counted from the subject's last token, or from the end of the
# text on, so captions of different lengths are compared place by place, as in ROME's traces.
PLACED = rf"""
WITH seen AS (
  SELECT DISTINCT caption_id, position, token_text AS text,
    starts_with(token_text, '<|start') AS is_start,
    token_text IN ('<|endoftext|>', '</s>') AS is_end
  FROM scores WHERE part = 'text-encoder' AND regexp_full_match(token, '\d+')),
words AS (
  SELECT caption_id, position, string_agg(CASE WHEN is_start OR is_end THEN ''
    ELSE lower(replace(replace(text, '</w>', ' '), '▁', ' ')) END, '')
    OVER (PARTITION BY caption_id ORDER BY position) AS said
  FROM seen),
subjects AS (
  SELECT caption_id, coalesce(
    min(position) FILTER (ends_with(' ' || trim(said), ' ' || lower(subject))),
    min(position) FILTER (ends_with(replace(said, ' ', ''), replace(lower(subject), ' ', ''))))
    AS subject_at
  FROM words JOIN captions USING (caption_id) GROUP BY caption_id),
placed AS (
  SELECT caption_id, position, text, subject_at,
    CASE WHEN is_start THEN -1 WHEN position >= end_at THEN 1 ELSE 0 END AS zone,
    CASE WHEN is_start THEN 0 WHEN position >= end_at THEN least(position - end_at, {PADS})
      ELSE position - subject_at END AS place
  FROM seen JOIN subjects USING (caption_id) JOIN (
    SELECT caption_id, coalesce(min(position) FILTER (is_end), max(position) + 1) AS end_at
    FROM seen GROUP BY caption_id) USING (caption_id))
"""
"""Queries with the table `placed`: each token's zone (start, text or end) and place in it."""
TOKENS = rf"""
{PLACED},
of_captions AS (
  SELECT attribute, part, component, measure, intervention, patch_kind, noise_sigmas, zone, place,
    caption_id, avg(indirect_effect) AS ie, mode(text) AS text
  FROM effects JOIN placed USING (caption_id, position)
  WHERE part = 'text-encoder' AND regexp_full_match(token, '\d+') AND subject_at IS NOT NULL
  GROUP BY ALL)
SELECT attribute, part, component, measure, intervention, patch_kind, noise_sigmas, zone, place,
  avg(ie) AS mean, stddev_samp(ie) / sqrt(count(*)) AS se, count(*) AS captions, mode(text) AS text
FROM of_captions GROUP BY ALL ORDER BY zone, place
"""
OF_CAPTIONS = rf"""
{PLACED}
SELECT attribute, part, component, measure, intervention, patch_kind, noise_sigmas, caption, zone,
  CASE WHEN zone = 0 THEN position ELSE place END AS place,
  zone = 0 AND coalesce(place = 0, false) AS is_subject, min(position) AS position,
  avg(indirect_effect) AS mean,
  stddev_samp(indirect_effect) / sqrt(count(*)) AS se, 1 AS captions, mode(text) AS text
FROM effects JOIN placed USING (caption_id, position)
WHERE list_contains($captions, caption_id) AND part = 'text-encoder'
  AND regexp_full_match(token, '\d+')
GROUP BY ALL ORDER BY position
"""
"""Query of single captions, also where the subject is not found; their seeds and draws vary."""


def place_rows(views: Views) -> list[Row]:
    """Return effects by component and place in the caption; none without single positions."""
    return _named(views, views.query(TOKENS).to_pylist()) if _has_positions(views) else []


def caption_rows(views: Views, captions: Sequence[Caption]) -> list[Row]:
    """Return the effects of each component at each word of captions, in the captions' order.

    `word` is the place's position and its text: two places of one word differ. The subject's last
    token has an asterisk, as in ROME's traces (Meng et al. 2022, figure 1). Pads from the ninth on
    are one place.
    """
    if not _has_positions(views):
        return []
    values = {"captions": [caption.id for caption in captions]}
    rows = _named(views, views.query(OF_CAPTIONS, values).to_pylist())
    for row in rows:
        text = row["text"] if row["zone"] == 0 else row["place"]
        row["word"] = f"{row['position']}|{text}{'*' if row['is_subject'] else ''}"
        row["place_order"] = row["position"]
    return rows


def first_captions(captions: Sequence[Caption]) -> list[Caption]:
    """Return the first caption of each attribute."""
    return list({caption.attribute: caption for caption in reversed(captions)}.values())


def _has_positions(views: Views) -> bool:
    return bool({"each", "words"} & {*views.run.plan.tokens})


def _named(views: Views, rows: Sequence[Row]) -> list[Row]:
    """Return rows with their intervals and the names of components and places."""
    drawn = places(views.run.components)
    components = {component.name: component for component in views.run.components}
    names = [row["component"] for row in rows]
    if unknown := [name for name in names if name not in components]:
        run = views.run
        raise StoreError(
            f"run {run.location} has scores of {shown(unknown[0])}, which is none of its "
            f"components: {run.repair_hint}"
        )
    found = [_token(row, components[c], drawn[c]) for row, c in zip(rows, names, strict=True)]
    return with_noise_texts(views.run, found)


def _token(row: Row, component: Component, place: Place) -> Row:
    half = 1.96 * row["se"] if row["se"] is not None else None
    return {
        **row,
        "low": None if half is None else row["mean"] - half,
        "high": None if half is None else row["mean"] + half,
        "label": place.label,
        "order": component.order,
        "place": place_name(row["zone"], row["place"]),
        "place_order": row["zone"] * 1000 + row["place"],
        "text": re.sub("</w>|▁", "", row["text"] or ""),
    }


def place_name(zone: int, place: int) -> str:
    """Return the name of a place in a caption."""
    if zone == -1:
        return "start"
    if zone == 1:
        return "end" if place == 0 else f"pad {place}" + ("+" if place == PADS else "")
    return "subject" if place == 0 else f"{place:+d}".replace("-", "\N{MINUS SIGN}")
