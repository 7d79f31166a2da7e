"""A trace as a job on a cluster: the checks here, and the data that are sent."""

from collections.abc import Sequence

from engine.model.registry import names_embedded
from jobs.cluster.submission import submit
from jobs.runs.progress import Note
from jobs.tracing.plan import check_plan
from schemas.errors import ModelUnavailable
from schemas.plan import TracePlan

PLAN_FILE = "submitted-plan.json"
"""The plan's name in the job's working directory."""


def submit_plan(
    plan: TracePlan, location: str, address: str, arguments: Sequence[str], note: Note
) -> str:
    """Submit the trace of a plan as the run at `location`; return the job's id.

    `arguments` are those of the job's command; they name the plan PLAN_FILE.

    If the model's configs can be opened here, the plan is checked here and a hub model is pinned to
    its commit; the job checks the plan in any case.
    """
    try:
        plan = check_plan(plan).plan
    except ModelUnavailable as error:  # the weights may be on the cluster alone
        note(f"not checked here ({error}): the job does")
    return submit(
        address,
        arguments=arguments,
        run=location,
        files={PLAN_FILE: plan.model_dump_json().encode()},
        ships_reference_model=names_embedded(plan.model, plan.scorer),
    )


def submit_resume(location: str, address: str, arguments: Sequence[str]) -> str:
    """Submit a job that continues the run at `location`; return the job's id."""
    return submit(address, arguments=arguments, run=location, files={})
