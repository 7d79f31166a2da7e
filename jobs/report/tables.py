"""The tables of a report's page: rows packed by column, and the columns that readers see."""

import math
from collections.abc import Sequence
from typing import Any

Rows = Sequence[dict[str, Any]]

STATE_FIELDS = (
    "attribute", "part", "measure", "intervention", "patch_kind", "noise_sigmas", "rank", "state",
    "label", "component", "kind", "letter", "token", "steps", "mean", "low", "high", "q",
    "recovery", "captions", "survives", "order", "x", "y", "main", "window", "controlled", "depth",
    "module",
)  # fmt: skip
TOKEN_FIELDS = (
    "attribute", "part", "measure", "intervention", "patch_kind", "noise_sigmas", "label",
    "component", "place", "place_order", "text", "steps", "mean", "low", "high", "captions",
    "order", "survives",
)  # fmt: skip
WORD_FIELDS = (
    "attribute", "part", "measure", "intervention", "patch_kind", "noise_sigmas", "caption",
    "label", "component", "word", "place_order", "text", "mean", "low", "high", "captions", "order",
)  # fmt: skip
OVERLAP_FIELDS = (
    "part", "measure", "patch_kind", "noise_sigmas", "attribute_a", "attribute_b", "num_a",
    "num_b", "num_both", "jaccard", "jaccard_low", "jaccard_high", "similarity",
    "similarity_ceiling", "q_differs",
)  # fmt: skip
CURVE_FIELDS = (
    "attribute", "part", "measure", "intervention", "patch_kind", "noise_sigmas", "curve", "size",
    "mean", "low", "high", "effect", "sets", "captions",
)  # fmt: skip
EFFECT = [
    ["mean", "mean effect", "effect"],
    ["low", "95 % from", "effect"],
    ["high", "to", "effect"],
]
VALUES = [
    *EFFECT,
    ["q", "q-value", "q"],
    ["recovery", "of the total effect", "recovery"],
    ["captions", "captions", "number"],
    ["survives", "survives", "text"],
]
COLUMNS = {
    "network": [["state", "state", "text"], ["kind", "kind", "text"], *VALUES],
    "ranking": [["rank", "rank", "number"], ["component", "component", "text"],
                ["token", "token", "text"], ["steps", "steps", "text"], *VALUES],
    "timesteps": [["label", "component", "text"], ["steps", "steps", "text"], *VALUES],
    "tokens": [["label", "component", "text"], ["place", "place", "text"],
               ["text", "most often", "text"], *EFFECT, ["captions", "captions", "number"]],
    "words": [["label", "component", "text"], ["place_order", "position", "number"],
              ["text", "token", "text"], *EFFECT],
    "depth": [["state", "state", "text"], ["depth", "layer", "number"], *VALUES],
    "controls": [["state", "state", "text"], ["intervention", "run", "text"], *VALUES],
    "sets": [["curve", "set", "text"], ["size", "components", "number"],
             ["intervention", "run", "text"], ["mean", "of the total effect", "ratio"],
             ["low", "95 % from", "ratio"], ["high", "to", "ratio"],
             ["effect", "mean effect", "effect"], ["sets", "sets", "number"],
             ["captions", "captions", "number"]],
    "overlaps": [["attribute_a", "attribute", "text"], ["attribute_b", "other", "text"],
                 ["num_a", "its states", "number"], ["num_b", "the other's", "number"],
                 ["num_both", "of both", "number"], ["jaccard", "Jaccard", "ratio"],
                 ["jaccard_low", "95 % from", "ratio"], ["jaccard_high", "to", "ratio"],
                 ["similarity", "similarity", "ratio"],
                 ["similarity_ceiling", "its ceiling", "ratio"],
                 ["q_differs", "q of a difference", "q"]],
}  # fmt: skip
"""Field, heading and format of each column, by figure."""


def packed(rows: Rows, fields: Sequence[str]) -> dict[str, Any]:
    """Return rows as columns: numbers rounded to six digits, texts as indices into a list."""
    return {"length": len(rows), "columns": {name: _column(rows, name) for name in fields}}


def _column(rows: Rows, name: str) -> dict[str, Any]:
    values = [row.get(name) for row in rows]
    if any(isinstance(value, str) for value in values):
        texts = list(dict.fromkeys(values))
        numbers = {text: number for number, text in enumerate(texts)}
        return {"texts": texts, "codes": [numbers[value] for value in values]}
    return {"values": [_rounded(value) for value in values]}


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return float(f"{value:.6g}")
