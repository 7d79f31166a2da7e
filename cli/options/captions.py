"""Options for the captions that a command reads."""

from typing import TYPE_CHECKING, Annotated

from cli.options.panels import READING, option

if TYPE_CHECKING:
    from jobs.runs.trace_run import TraceRun
    from schemas.caption_filter import CaptionFilter

KnownOption = Annotated[
    str | None,
    option(
        "Read only captions whose clean run scores at least this, target:0.2 for example.",
        panel=READING,
        default="the plan's",
        metavar="MEASURE:SCORE",
    ),
]
MinTotalEffectOption = Annotated[
    float | None,
    option(
        "Read only captions with at least this total effect.",
        "--min-te",
        panel=READING,
        default="the plan's",
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
