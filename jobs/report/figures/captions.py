"""The effects of a text encoder's components at the words of one caption."""

from jobs.query.opened import Views
from jobs.report.figures.data import PLACED, Row, token_row
from jobs.report.figures.labels import places

# Seeds and draws are what varies within one caption.
OF_CAPTION = rf"""
{PLACED}
SELECT attribute, part, component, measure, intervention, zone, place, min(position) AS position,
  avg(indirect_effect) AS mean, stddev_samp(indirect_effect) / sqrt(count(*)) AS se,
  1 AS captions, mode(text) AS text
FROM effects JOIN placed USING (caption_id, position)
WHERE caption = $caption AND part = 'text-encoder' AND regexp_full_match(token, '\d+')
GROUP BY ALL ORDER BY position
"""


def caption_rows(views: Views, caption: str) -> list[Row]:
    """Return the effects of each component at each word of a caption, in the caption's order.

    `word` is the place's position and its text: two places of one word differ. The subject's last
    token has an asterisk, as in ROME's traces (Meng et al. 2022, figure 1). Pads from the ninth on
    are one place.
    """
    drawn = places(views.run.components)
    components = {component.name: component for component in views.run.components}
    rows = views.query(OF_CAPTION, {"caption": caption}).to_pylist()
    shown = [token_row(row, components[row["component"]], drawn[row["component"]]) for row in rows]
    for row in shown:
        is_subject = row["zone"] == 0 and row["place"] == "subject"
        text = row["text"] if row["zone"] == 0 else row["place"]
        row["word"] = f"{row['position']}|{text}{'*' if is_subject else ''}"
        row["place_order"] = row["position"]
    return shown
