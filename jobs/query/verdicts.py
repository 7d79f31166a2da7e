"""What a run's ranking says, in words: what is causal, how surely, or why nothing can be found."""

from jobs.query.select import run_query
from jobs.runs.trace_run import Run

FOUND = """
SELECT attribute, part, count(*) AS states, count_if(is_causal) AS causal,
  max(num_captions) AS captions, min(q_causal) AS least_q,
  arg_max({component, mean_ie, ie_low, ie_high}, mean_ie) FILTER (is_causal) AS leader,
  list_sort(list_distinct(flatten(list(controls)))) AS controls
FROM ranking
WHERE intervention = 'restore' AND against = $1 AND ($2 IS NULL OR attribute = $2)
  AND ($3 IS NULL OR part = $3)
GROUP BY ALL ORDER BY ALL
""".replace(
    "{component, mean_ie, ie_low, ie_high}",
    "{'component': component, 'mean_ie': mean_ie, 'low': ie_low, 'high': ie_high}",
)
RATE = "at a false discovery rate of 5 %"
LEAST_CAPTIONS = 6
"""With fewer, flipping signs gives no p-value below 0.05: 2^(1 - 5) is 0.06."""


def verdicts(run: Run, *, against: str, attribute: str | None, part: str | None) -> list[str]:
    """Return a sentence for each attribute and part that has restored states.

    Where captions are too few for anything to be found, one sentence says so for all.
    """
    rows = run_query(run, FOUND, [against, attribute, part]).to_pylist()
    few = [row for row in rows if row["captions"] < LEAST_CAPTIONS]
    sentences = [_sentence(row) for row in rows if row not in few]
    if few:
        most = max(row["captions"] for row in few)
        sentences.append(
            f"Nothing can be found causal for {_names(few)}: with {most} captions an attribute no "
            f"p-value is below {2.0 ** (1 - most):.2g}; trace {LEAST_CAPTIONS} or, better, 20."
        )
    return sentences


def _names(rows: list[dict]) -> str:
    return ", ".join(dict.fromkeys(row["attribute"] for row in rows))


def _sentence(row: dict) -> str:
    over = f"{row['attribute']}, {row['part']}:"
    controls = f" and beside {' and '.join(row['controls'])}" if row["controls"] else ""
    if not row["causal"]:
        return (
            f"{over} none of {row['states']} states is found causal {RATE}{controls} "
            f"({row['captions']} captions, least q {row['least_q']:.2g}); few captions find little."
        )
    leader = row["leader"]
    # An end without a bound is null.
    low, high = (
        sign + "inf" if end is None else f"{end:.3f}"
        for sign, end in (("-", leader["low"]), ("+", leader["high"]))
    )
    return (
        f"{over} {row['causal']} of {row['states']} states are causal {RATE}{controls} "
        f"({row['captions']} captions), led by {leader['component']}: "
        f"{leader['mean_ie']:+.3f} [{low}, {high}]."
    )
