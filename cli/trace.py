"""`dqf trace`: submit a plan, resume its run, and watch it."""

from typing import Annotated

import typer

from cli.job import arguments, say_submitted, shared, trace_here
from cli.options.arguments import RunArgument
from cli.options.meant import SuggestingGroup
from cli.options.plan import PLAN_OPTIONS, GivenPlan, with_plan_options
from cli.options.progress import with_progress_options
from cli.options.run import RetryOption, RunOptions, with_run_options
from cli.options.runs import run_location
from cli.printing.lines import note
from cli.printing.output import Format, FormatOption, print_rows

app = typer.Typer(
    cls=SuggestingGroup, no_args_is_help=True, help="Trace where a model keeps an attribute."
)


@app.command(epilog="Example: dqf trace submit --captions captions.csv --model sd-1.4 --run art")
@with_progress_options
@with_run_options
@with_plan_options
def submit(
    context: typer.Context,
    given: GivenPlan,
    how: RunOptions,
    run: Annotated[
        str, typer.Option(help="The run's name under runs/, its folder, or its URL.")
    ] = "demo",
) -> None:
    """Trace captions on Ray, or resume a run that was cut short.

    Without options it traces a small balanced subset of emoji-sd's probe set, as run `demo`.
    """
    from jobs.cluster.address import check_address
    from jobs.cluster.submission import is_job_address
    from jobs.runs.opening import check_place
    from jobs.runs.trace_run import TraceRun
    from jobs.tracing.plan import check_plan
    from jobs.tracing.submit import PLAN_FILE, submit_plan
    from jobs.tracing.trace import prepare_run

    plan, location = given.plan(), run_location(run)
    if how.address and is_job_address(how.address):
        sent = dict.fromkeys(PLAN_OPTIONS) | {"plan": PLAN_FILE, "run": shared(location)}
        words = arguments(context, sent)
        submission_id = submit_plan(plan, shared(location), how.address, words, note)
        return say_submitted(submission_id, run, how.address, waits=how.wait)
    if how.address:
        check_address(how.address)
    check_place(TraceRun, location)  # checking the plan takes longer: it opens the model
    planned = check_plan(plan)
    from jobs.tracing.operations import note_of_large_model

    if (advice := note_of_large_model(planned)) is not None:
        note(advice)
    if how.address is None:
        from jobs.tracing.cost import refuse_too_large

        refuse_too_large(planned.plan, offload=how.offload)
    trace_here(prepare_run(location, planned), how, retry_failed=False)


@app.command(epilog="Example: dqf trace resume demo --retry-failed")
@with_run_options
@with_progress_options
def resume(
    context: typer.Context,
    run: RunArgument,
    how: RunOptions,
    retry_failed: RetryOption = False,
) -> None:
    """Continue a run that was cut short, or try its failed units again."""
    note(f"opening run {run}")
    from jobs.cluster.address import check_address
    from jobs.cluster.submission import is_job_address
    from jobs.runs.opening import resumed
    from jobs.runs.trace_run import open_run
    from jobs.tracing.submit import submit_resume

    location = run_location(run)
    if how.address and is_job_address(how.address):
        words = arguments(context, {"run": shared(location)})
        submission_id = submit_resume(shared(location), how.address, words)
        return say_submitted(submission_id, run, how.address, waits=how.wait)
    if how.address:
        check_address(how.address)
    trace_here(resumed(open_run(location)), how, retry_failed=retry_failed)


@app.command(epilog="Example: dqf trace plan --probe emoji-sd --window each")
@with_plan_options
def plan(
    given: GivenPlan,
    calibrate: Annotated[
        bool, typer.Option(help="Open the model and time its denoiser on this machine's device.")
    ] = True,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Check a plan and print its cost, without running it."""
    from dataclasses import asdict

    from jobs.tracing.plan import check_plan

    planned = check_plan(given.plan())
    from jobs.tracing.cost import device_time, plan_cost
    from jobs.tracing.operations import long_plan_note, plan_petaflops

    cost = plan_cost(planned)
    petaflops = plan_petaflops(planned, cost)
    row: dict[str, object] = {**asdict(cost), "petaflops": petaflops}
    is_screen = planned.plan.screen is not None
    if (advice := long_plan_note(cost, petaflops, is_screen=is_screen)) is not None:
        note(advice)
    if calibrate:
        row |= asdict(device_time(planned, cost))
    print_rows([row], output_format)
