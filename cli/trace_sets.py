"""`dqf trace sets RUN`: how many components of a ranking together carry an attribute."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.job import arguments, say_submitted, shared, trace_here
from cli.options.arguments import RunArgument
from cli.options.completion import attributes
from cli.options.panels import RUNNING, WHAT, choice, option
from cli.options.part import part_option
from cli.options.progress import with_progress_options
from cli.options.run import RunOptions, with_run_options
from cli.options.runs import run_location
from cli.printing.answers import say_unscored
from cli.printing.lines import note
from cli.printing.output import Format, FormatOption, print_rows, print_table
from schemas.component import Part
from schemas.intervention import PatchKind

if TYPE_CHECKING:
    from jobs.runs.trace_run import TraceRun
    from schemas.plan import TracePlan


@with_run_options
@with_progress_options
def sets(
    context: typer.Context,
    run: RunArgument,
    how: RunOptions,
    into: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="NAME",
            help="Name, folder or URL of the new run, with which those of the rounds begin.",
            show_default="RUN-sets",
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        option(
            "Only this attribute; repeatable.", panel=WHAT, default="all", autocompletion=attributes
        ),
    ] = None,
    part: Annotated[
        Part | None, part_option("Only sets of this part", default="both, each with its own")
    ] = None,
    patch: Annotated[
        PatchKind, choice("Kind of patch", PatchKind, panel=WHAT, metavar="PATCH")
    ] = PatchKind.STATE,
    measure: Annotated[str, option("Measure that components are ranked by.", panel=WHAT)] = (
        "target"
    ),
    top: Annotated[
        int, option("Components of the largest set.", panel=WHAT, metavar="K", min=1, max=1000)
    ] = 13,
    random: Annotated[
        int,
        option(
            "Random sets of each size, of the same kinds.",
            panel=WHAT,
            metavar="N",
            min=0,
            max=100,
        ),
    ] = 3,
    seed: Annotated[int, option("Seed of the random sets.", panel=WHAT, metavar="N")] = 0,
    share: Annotated[
        float,
        option(
            "Share of the total effect that a greedy set reaches; 0: no greedy set.",
            panel=WHAT,
            metavar="SHARE",
            min=0,
            max=1,
        ),
    ] = 0.9,
    dry_run: Annotated[
        bool,
        option(
            "Print the cost of the sets but the greedy ones, and trace nothing.",
            "--dry-run",
            panel=RUNNING,
        ),
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Patch the leading components of RUN together: how many carry an attribute?

    Components are ranked on one half of the captions, by hash of the caption, and the sets are
    traced on the other half: the first 1, 2, 3, 5, ... restored together, corrupted together,
    random sets of equal size and kinds, and a greedy set, the fewest that reach a share of the
    total effect. Greedy sets are found on the ranked half, in rounds that are runs of their own.
    """
    note(f"opening run {run}")
    from jobs.cluster.address import check_address
    from jobs.cluster.submission import is_job_address
    from jobs.query.select import run_query
    from jobs.runs.trace_run import open_run
    from jobs.tracing.located_sets import SetsRequest, locate_sets
    from jobs.tracing.set_plans import planned_sets, sets_plan
    from jobs.tracing.submit import submit_resume

    location = run_location(run)
    target = run_location(into) if into is not None else f"{location.rstrip('/')}-sets"
    request = SetsRequest(
        attributes=tuple(attribute or ()),
        part=part,
        patch=patch,
        measure=measure,
        top=top,
        random=random,
        seed=seed,
        share=share,
    )
    opened = open_run(location)
    say_unscored(opened)
    located = locate_sets(opened, request)
    if dry_run:
        return _print_cost(planned_sets(located), output_format)
    if how.address and is_job_address(how.address):
        words = arguments(context, {"run": shared(location), "into": shared(target)})
        submission_id = submit_resume(shared(target), how.address, words)
        return say_submitted(submission_id, target, how.address, waits=how.wait)
    if how.address:
        check_address(how.address)
    plan = sets_plan(located, target, lambda plan, place: _traced(plan, place, how))
    traced = _traced(plan, target, how)
    print_table(run_query(traced, CURVES, {"measure": measure}), output_format)


CURVES = """
SELECT attribute, part, curve, size, num_sets, intervention, mean_recovery, recovery_low,
  recovery_high, mean_ie, mean_te, num_captions
FROM set_curves WHERE measure = $measure
ORDER BY attribute, part, intervention DESC, curve DESC, size
"""


def _traced(plan: "TracePlan", location: str, how: RunOptions) -> "TraceRun":
    """Return the run of a plan, traced; one that is there is continued."""
    from jobs.tracing.cost import refuse_too_large
    from jobs.tracing.plan import check_plan
    from jobs.tracing.trace import prepare_run

    planned = check_plan(plan)
    if how.address is None:
        refuse_too_large(planned.plan, offload=how.offload)
    made = prepare_run(location, planned)
    trace_here(made, how, retry_failed=False)
    return made


def _print_cost(plan: "TracePlan", output_format: Format) -> None:
    from dataclasses import asdict

    from jobs.tracing.cost import plan_cost
    from jobs.tracing.plan import check_plan

    print_rows([asdict(plan_cost(check_plan(plan)))], output_format)
