"""The options that make a plan, shared by `dqf trace submit` and `dqf trace plan`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options.shared import with_options
from cli.printing.lines import note
from schemas.component import Kind, Part
from schemas.intervention import Intervention, PatchKind, TokenRole
from schemas.window import GRAMMAR

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
    "window": "windows",
    "token": "tokens",
    "intervention": "interventions",
    "patch": "patches",
    "reference": "references",
    "measure": "measures",
}
"""Fields of the plan by their options' names; all but the first two options are repeatable."""


def with_plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the plan's options; it gets the plan's fields as `fields`."""
    return with_options(_declared, into="fields", made_by=_fields)(command)


def _declared(
    *,
    model: Annotated[
        str | None, typer.Option(help="Built-in name, diffusers folder or hub id.")
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="CSV, JSONL or Parquet: caption, subject, attribute[, target]."),
    ] = None,
    probe: Annotated[str | None, typer.Option(help="A whole built-in probe set.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A YAML plan; other plan options override its fields.")
    ] = None,
    part: Annotated[str | None, typer.Option(help="denoiser, text-encoder or both.")] = None,
    kind: Annotated[
        list[Kind] | None, typer.Option(help="Kind of component to trace; repeatable.")
    ] = None,
    component: Annotated[
        list[str] | None, typer.Option(help="Trace only this component; repeatable.")
    ] = None,
    consecutive: Annotated[
        int | None, typer.Option(help="Components of one kind patched together.")
    ] = None,
    window: Annotated[
        list[str] | None,
        typer.Option(help=f"UNet: steps at which to patch: {GRAMMAR}; repeatable."),
    ] = None,
    token: Annotated[
        list[TokenRole] | None,
        typer.Option(help="Text encoder: tokens at which to patch; repeatable."),
    ] = None,
    intervention: Annotated[
        list[Intervention] | None,
        typer.Option(help="Patch to make, also controls and ablations; repeatable."),
    ] = None,
    patch: Annotated[
        list[PatchKind] | None,
        typer.Option(
            help="Copy a component's whole output, or only what it adds to its input; repeatable."
        ),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="Caption whose clean run is a source of mean and other-caption."),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of the latent; repeatable.")] = None,
    draws: Annotated[int | None, typer.Option(help="Noise draws per caption and seed.")] = None,
    corruption: Annotated[
        str | None, typer.Option(help="noise, or the captions' counterfactual.")
    ] = None,
    occurrence: Annotated[
        str | None, typer.Option(help="Mentions of the subject to corrupt: all, first or last.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Noise on the subject, in sigmas of the embeddings.")
    ] = None,
    noise_absolute: Annotated[
        float | None, typer.Option(help="Standard deviation of the noise, absolute.")
    ] = None,
    noise_at: Annotated[
        str | None, typer.Option(help="Denoiser trace: noise the text encoder's input or output.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(help="What is corrupted and restored: tokens, pooled or both, the default."),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="ddim, euler, dpm++ ...; the model's own by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="Negative prompt.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; the model's by default.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; the model's by default.")] = None,
    cfg_patch: Annotated[
        str | None, typer.Option(help="Half of guidance to patch: cond or both.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Scorer: an open_clip folder or ARCHITECTURE:PRETRAINED.")
    ] = None,
    options: Annotated[
        Path | None,
        typer.Option(help="YAML: the words of each attribute that the margin compares."),
    ] = None,
    known: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE:SCORE",
            help="By default read only captions whose clean run has this score; all are traced.",
        ),
    ] = None,
    min_te: Annotated[
        float | None,
        typer.Option(help="By default read only captions with this total effect; all are traced."),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="caption, target, clean-image, clean-latent or margin; repeatable."),
    ] = None,
) -> None:
    """Declares the options; never called."""


PLAN_OPTIONS = tuple(inspect.signature(_declared).parameters)
"""The options that a plan file replaces."""


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return the plan's fields: those of the plan file, overridden by the options."""
    note("reading the plan")
    from jobs.input.captions import pick, read_captions
    from jobs.input.probes import DEMO_CAPTIONS_PER_ATTRIBUTE, probe_set
    from jobs.tracing.plan import read_options, read_plan
    from schemas.errors import PlanError

    given = {
        FIELDS.get(name, name): value for name, value in options.items() if value not in (None, [])
    }
    plan, captions, probe, part, listed = (
        given.pop(name, None) for name in ("plan", "captions", "probe", "part", "options")
    )
    numerics = {name: given.pop(name) for name in list(given) if name in NUMERICS}
    fields = (read_plan(plan) if plan else {}) | given
    if part is not None:
        fields["parts"] = _parts(part)
    fields["numerics"] = {**(fields.get("numerics") or {}), **numerics}  # pyright: ignore
    if listed:
        fields["options"] = read_options(listed)
    if captions and probe:
        raise PlanError("give --captions or --probe, not both")
    if captions:
        fields["captions"] = read_captions(captions)
    elif probe:
        fields["captions"] = probe_set(probe)
    elif "captions" not in fields:
        if fields.get("model", "emoji-sd") != "emoji-sd":
            raise PlanError("give --captions FILE or --probe sd to say what to trace on this model")
        fields["captions"] = pick(probe_set("emoji-sd"), each=DEMO_CAPTIONS_PER_ATTRIBUTE)
    return fields


def _parts(part: str) -> list[str]:
    from schemas.errors import PlanError

    if part == "both":
        return [member.value for member in Part]
    try:
        return [Part(part).value]
    except ValueError:
        raise PlanError(f"--part is denoiser, text-encoder or both, not {part!r}") from None
