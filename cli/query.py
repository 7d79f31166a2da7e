"""`dqf rank` and `dqf query`: reading causal scores."""

from typing import Annotated

import typer

from cli.output import Format, FormatOption, print_table
from cli.runs import RunArgument, run_location
from schemas.component import Part
from schemas.intervention import CONTROLS, Intervention

RANK = """
SELECT attribute, part, against, rank, component, token,
  step_start || ':' || step_stop AS steps, mean_ie, se_ie, mean_recovery, num_captions
FROM ranking
WHERE against = $1 AND ($2 IS NULL OR attribute = $2) AND ($3 IS NULL OR part = $3) AND rank <= $4
  AND intervention = $5
ORDER BY attribute, part, rank, component, token, step_start, step_stop
"""

BEYOND = """
SELECT attribute, part, against,
  rank() OVER (PARTITION BY attribute, part ORDER BY mean_difference DESC) AS rank,
  component, token, step_start || ':' || step_stop AS steps,
  mean_ie, control_ie, se_control, mean_difference, se_difference, num_captions
FROM controlled_effects
WHERE against = $1 AND ($2 IS NULL OR attribute = $2) AND ($3 IS NULL OR part = $3)
  AND control = $5
QUALIFY rank <= $4
ORDER BY attribute, part, rank, component, token, step_start, step_stop
"""


def rank(
    run: RunArgument,
    attribute: Annotated[str | None, typer.Option(help="Only this attribute.")] = None,
    part: Annotated[Part | None, typer.Option(help="Only this part.")] = None,
    against: Annotated[
        str, typer.Option(help="Score: caption, target, clean-image or clean-latent.")
    ] = "target",
    intervention: Annotated[
        Intervention, typer.Option(help="Which changed runs: restored ones, controls, ablations.")
    ] = Intervention.RESTORE,
    beyond: Annotated[
        Intervention | None,
        typer.Option(help="Rank by what restoring does beyond a control: other-seed or -caption."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Components shown of each ranking.")] = 10,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Rank components by their mean indirect effect, for each attribute and part."""
    from jobs.query import run_query
    from jobs.store import open_run
    from schemas.errors import PlanError

    opened = open_run(run_location(run))
    plan = opened.plan
    if against not in plan.scores:
        raise PlanError(f"run {run} has no score {against!r}: it has {', '.join(plan.scores)}")
    shown = beyond or intervention
    if shown not in plan.interventions:
        traced = ", ".join(plan.interventions)
        raise PlanError(f"run {run} has no intervention {shown.value!r}: it has {traced}")
    if beyond and beyond not in CONTROLS:
        raise PlanError(f"--beyond is {' or '.join(CONTROLS)}, not {beyond.value!r}")
    known = run_query(opened, "SELECT DISTINCT attribute FROM captions ORDER BY 1")
    names = known["attribute"].to_pylist()
    if attribute is not None and attribute not in names:
        raise PlanError(f"run {run} has no attribute {attribute!r}: it has {', '.join(names)}")
    parameters = [against, attribute, part.value if part else None, top, shown.value]
    print_table(run_query(opened, BEYOND if beyond else RANK, parameters), output_format)
