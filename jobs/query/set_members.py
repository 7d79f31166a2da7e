"""The components of a run's sets, which follow from its plan."""

from jobs.runs.trace_run import TraceRun
from schemas.views import quoted


def members_of(run: TraceRun) -> str:
    """Return the SELECT of the components of a run's sets, a row each for every attribute whose
    captions are traced with the set."""
    attributes = dict.fromkeys(caption.attribute for caption in run.plan.captions)
    rows = [
        f"({quoted(each.name)}, {quoted(attribute)}, "
        f"{'NULL' if each.curve is None else quoted(each.curve.value)}, "
        f"{quoted(member.component.name)}, {quoted(member.component.part.value)}, "
        f"{quoted('all' if member.token is None else member.token.value)}, "
        f"{member.window[0]}, {member.window[1]})"
        for each in run.sets
        for attribute in attributes
        if each.attribute in (None, attribute)
        for member in each.members
    ]
    listed = rows or ["(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"]
    return f"""
SELECT set_name::VARCHAR AS set_name, attribute::VARCHAR AS attribute, curve::VARCHAR AS curve,
  component::VARCHAR AS component, part::VARCHAR AS part, token::VARCHAR AS token,
  step_start::INTEGER AS step_start, step_stop::INTEGER AS step_stop
FROM (VALUES {", ".join(listed)}) AS members(
  set_name, attribute, curve, component, part, token, step_start, step_stop)
WHERE set_name IS NOT NULL
"""
