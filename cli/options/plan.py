"""The options that make a plan, shared by `dqf trace submit` and `dqf trace plan`."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cli.options.models import named
from cli.options.plan_options import declared
from cli.options.runs import run_location
from cli.options.shared import with_options
from cli.printing.lines import note
from engine.model.registry import EMBEDDED
from schemas.component import Part

if TYPE_CHECKING:
    from schemas.plan import TracePlan

NUMERICS = (
    "scheduler", "steps", "guidance", "negative_prompt", "height", "width", "cfg_patch", "dtype",
    "corruption", "noise_sigmas", "noise_absolute", "noise_at", "path", "occurrence",
)  # fmt: skip
"""Options that are fields of the plan's `numerics`."""
FIELDS = {
    "noise": "noise_sigmas",
    "draws": "noise_draws",
    "seed": "seeds",
    "kind": "kinds",
    "component": "components",
    "set": "sets",
    "window": "windows",
    "token": "tokens",
    "intervention": "interventions",
    "patch": "patches",
    "reference": "references",
    "measure": "measures",
}
"""Fields of the plan by their options' names; all options but --draws are repeatable."""
OF_SCREENED = ("from_run", "exact", "random", "share")
"""Options that make a plan from a screened run, without any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenPlan:
    """A plan as the command line gives it, before it is complete."""

    fields: Mapping[str, Any]
    typed: Mapping[str, str]
    """The options as they were typed, `--dtype fp8` for example, by the plan's field."""

    def plan(self) -> "TracePlan":
        """Return the plan; PlanError names the option, where one gave the field that is wrong."""
        from jobs.tracing.plan import WrongField, make_plan
        from schemas.errors import PlanError

        try:
            return make_plan(self.fields)
        except WrongField as error:
            whole = error.field.partition(".")[0]  # of a field inside a set
            option = self.typed.get(error.field) or self.typed.get(whole)
            if option is None:
                raise
            raise PlanError(f"{option}: {error.problem}") from error


def with_plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the plan's options; it gets them as `given`, a GivenPlan."""
    return with_options(declared, into="given", made_by=_given)(command)


PLAN_OPTIONS = tuple(inspect.signature(declared).parameters)
"""The options that a plan file replaces."""


def _given(options: dict[str, Any]) -> GivenPlan:
    return GivenPlan(fields=_fields(options), typed=dict(_typed(options)))


def _typed(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields that options give, each with the option and its values."""
    for name, value in options.items():
        if value not in (None, []):
            field = FIELDS.get(name, name)
            values = cast("list[object]", value) if isinstance(value, list) else [value]
            typed = " ".join(f"--{name.replace('_', '-')} {item}" for item in values)
            yield f"numerics.{field}" if field in NUMERICS else field, typed


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return the plan's fields: those of the plan file, overridden by the options."""
    note("reading the plan")
    from jobs.input.captions import read_captions
    from jobs.tracing.plan import numerics_of, read_options, read_plan
    from schemas.component_set import read_set
    from schemas.errors import PlanError

    given = {
        FIELDS.get(name, name): value for name, value in options.items() if value not in (None, [])
    }
    if not given.keys().isdisjoint(OF_SCREENED):
        return _exact_fields(given)
    plan, captions, probe, part, listed, revision, variant = (
        given.pop(name, None)
        for name in ("plan", "captions", "probe", "part", "options", "revision", "variant")
    )
    numerics = {name: given.pop(name) for name in list(given) if name in NUMERICS}
    if typed_sets := given.get("sets"):
        given["sets"] = [read_set(text) for text in typed_sets]
    fields = (read_plan(plan) if plan else {}) | given
    if revision is not None or variant is not None:
        model = fields.get("model")
        fields["model"] = named(
            None if model is None else str(model), revision=revision, variant=variant
        )
    if part is not None:
        fields["parts"] = _parts(part)
    fields["numerics"] = {**numerics_of(fields), **numerics}
    if listed:
        fields["options"] = read_options(listed)
    if "noise_sigmas" in numerics and fields["numerics"].get("noise_absolute") is not None:
        raise PlanError("give --noise or --noise-absolute, of the plan too, not both")
    if captions and probe:
        raise PlanError("give --captions or --probe, not both")
    if captions:
        fields |= {"captions": read_captions(captions), "probe": None}
    elif probe or "captions" not in fields:
        fields |= _probed(probe or fields.get("probe"), model=fields.get("model", "emoji-sd"))
    return fields


def _exact_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the plan of what a screened run chose; PlanError: another option is
    given, or one lacks."""
    from jobs.runs.trace_run import open_run
    from jobs.tracing.exact_plans import DEFAULT_SHARE, ExactRequest, exact_plan
    from schemas.errors import PlanError

    options = {field: name for name, field in FIELDS.items()}
    for field in given:
        if field not in OF_SCREENED:
            name = options.get(field, field).replace("_", "-")
            raise PlanError(f"--from-run takes the screened run's plan: leave out --{name}")
    for name in ("from_run", "exact"):
        if name not in given:
            raise PlanError(
                "an exact run of a screened one takes --from-run RUN and --exact K: give "
                f"--{name.replace('_', '-')}"
            )
    request = ExactRequest(
        top=given["exact"], share=given.get("share", DEFAULT_SHARE), random=given.get("random")
    )
    return exact_plan(open_run(run_location(given["from_run"])), request).model_dump()


def _probed(probe: object, *, model: object) -> dict[str, Any]:
    """Return the captions of a built-in probe set, or a few of the embedded models'.

    PlanError: no set is named for another model, or no set has the name and version.
    """
    from jobs.input.captions import pick
    from jobs.input.probes import DEMO_CAPTIONS_PER_ATTRIBUTE, probe_set, with_version
    from schemas.errors import PlanError

    if probe is None and model not in EMBEDDED:
        raise PlanError("give --captions FILE or --probe sd to say what to trace on this model")
    version = with_version(str(probe or "emoji-sd"))
    captions = probe_set(version.partition("@")[0])
    chosen = captions if probe else pick(captions, each=DEMO_CAPTIONS_PER_ATTRIBUTE)
    note(f"probe set {version}: {len(chosen)} of {len(captions)} captions")
    return {"captions": chosen, "probe": version}


def _parts(part: str) -> list[str]:
    from schemas.errors import PlanError

    if part == "both":
        return [member.value for member in Part]
    try:
        return [Part(part).value]
    except ValueError:
        raise PlanError(f"--part is denoiser, text-encoder or both, not {part!r}") from None
