"""The options that say which captions are read."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jobs.runs.trace_run import TraceRun
    from schemas.caption_filter import CaptionFilter

KnownOption = Annotated[
    str | None,
    typer.Option(
        metavar="MEASURE:SCORE",
        help="Read only captions whose clean run has this score, target:0.2 for example; the "
        "plan's by default.",
    ),
]
MinTotalEffectOption = Annotated[
    float | None,
    typer.Option(
        "--min-te", help="Read only captions with this total effect; the plan's by default."
    ),
]


def caption_filter(run: "TraceRun", known: str | None, min_te: float | None) -> "CaptionFilter":
    """Return the filter of two options, which fall back on the plan; PlanError as `parsed`."""
    from schemas.caption_filter import CaptionFilter

    plan = run.plan
    return CaptionFilter.parsed(
        plan.known if known is None else known,
        plan.min_te if min_te is None else min_te,
        measures=plan.measures,
    )
