"""`dqf rank`: components by their causal scores."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.options.part import part_option
from cli.options.runs import RunArgument, run_location
from cli.printing.lines import say
from cli.printing.output import Format, FormatOption, print_table
from schemas.component import Part
from schemas.intervention import CONTROLS, Intervention

STATES = """
SELECT attribute, part, measure, {place}component, token,
  step_start || ':' || step_stop AS steps, {figures}, num_captions
FROM {view}
WHERE measure = $1 AND ($2 IS NULL OR attribute = $2) AND ($3 IS NULL OR part = $3)
  AND {kind} = $5
QUALIFY row_number() OVER (PARTITION BY attribute, part
  ORDER BY {by} DESC, component, token, step_start, step_stop) <= $4
ORDER BY attribute, part, {by} DESC, component, token, step_start, step_stop
"""

RANK = STATES.format(
    view="ranking",
    kind="intervention",
    by="mean_ie",
    place="rank, ",
    figures="mean_ie, ie_low, ie_high, q_causal, is_causal, mean_recovery",
)

BEYOND = STATES.format(
    view="controlled_effects",
    kind="control",
    by="mean_difference",
    place="",
    figures="mean_difference, difference_low, difference_high, q_difference, "
    "mean_ie, control_ie, control_low, control_high, q_control",
)

OVERLAP = """
FROM overlap
WHERE measure = $1 AND ($2 IS NULL OR attribute_a = $2 OR attribute_b = $2)
  AND ($3 IS NULL OR part = $3)
ORDER BY ALL
"""

CONCENTRATION = """
FROM concentration
WHERE measure = $1 AND ($2 IS NULL OR attribute = $2) AND ($3 IS NULL OR part = $3)
ORDER BY ALL
"""


class Shown(StrEnum):
    """What `dqf rank` prints."""

    STATES = "states"
    OVERLAP = "overlap"
    CONCENTRATION = "concentration"


def rank(
    run: RunArgument,
    attribute: Annotated[str | None, typer.Option(help="Only this attribute.")] = None,
    part: Annotated[Part | None, part_option("Only this part.")] = None,
    measure: Annotated[
        str, typer.Option(help="Measure: caption, target, clean-image or clean-latent.")
    ] = "target",
    intervention: Annotated[
        Intervention, typer.Option(help="Which changed runs: restored ones, controls, ablations.")
    ] = Intervention.RESTORE,
    beyond: Annotated[
        Intervention | None,
        typer.Option(help=f"Rank by what restoring does beyond a control: {', '.join(CONTROLS)}."),
    ] = None,
    show: Annotated[
        Shown,
        typer.Option(
            help="The states; how attributes' causal states overlap; in how few components "
            "the effects are."
        ),
    ] = Shown.STATES,
    top: Annotated[int, typer.Option(min=1, help="States shown of each ranking.")] = 10,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Rank components by their mean indirect effect, for each attribute and part.

    Intervals are of 95 %; ranks tie where intervals overlap; a state is causal where
    q_causal < 0.05 (docs/statistics.md). What that comes to is said on stderr.
    """
    from jobs.query.select import run_query
    from jobs.query.verdicts import verdicts
    from jobs.runs.trace_run import open_run
    from schemas.errors import PlanError

    opened = open_run(run_location(run))
    plan = opened.plan
    if measure not in plan.measures:
        raise PlanError(f"run {run} has no measure {measure!r}: it has {', '.join(plan.measures)}")
    shown = beyond or intervention
    if shown not in plan.interventions:
        traced = ", ".join(plan.interventions)
        raise PlanError(f"run {run} has no intervention {shown.value!r}: it has {traced}")
    if beyond and beyond not in CONTROLS:
        raise PlanError(f"--beyond is one of {', '.join(CONTROLS)}, not {beyond.value!r}")
    known = run_query(opened, "SELECT DISTINCT attribute FROM captions ORDER BY 1")
    names = known["attribute"].to_pylist()
    if attribute is not None and attribute not in names:
        raise PlanError(f"run {run} has no attribute {attribute!r}: it has {', '.join(names)}")
    of_part = part.value if part else None
    if show is Shown.STATES:
        parameters = [measure, attribute, of_part, top, shown.value]
        table = run_query(opened, BEYOND if beyond else RANK, parameters)
    else:
        sql = OVERLAP if show is Shown.OVERLAP else CONCENTRATION
        table = run_query(opened, sql, [measure, attribute, of_part])
    print_table(table, output_format)
    for sentence in verdicts(opened, measure=measure, attribute=attribute, part=of_part):
        say(sentence, err=True)
