"""The options of a plan, declared once, in panels."""

from pathlib import Path
from typing import Annotated

from cli.options.completion import runs
from cli.options.models import RevisionOption, VariantOption, model_option
from cli.options.panels import (
    CORRUPTION,
    MODEL,
    READING,
    SAMPLING,
    WHAT,
    WHERE,
    choice,
    option,
)
from cli.options.sampling import DEMO, OWN, GuidanceOption, SchedulerOption, StepsOption
from schemas.component import PAPER_KINDS, Kind
from schemas.intervention import Intervention, PatchKind, TokenRole
from schemas.screen import Screen
from schemas.window import GRAMMAR

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""The plan's names of number types by their short names."""


def _dtype(text: str) -> str:
    return DTYPES.get(text, text)


def declared(
    *,
    model: Annotated[
        str | None, model_option("Built-in name, diffusers folder or hub id.", default=DEMO.name)
    ] = None,
    revision: RevisionOption = None,
    variant: VariantOption = None,
    scorer: Annotated[
        str | None,
        option("An open_clip folder or ARCHITECTURE:PRETRAINED.", panel=MODEL, default=OWN),
    ] = None,
    dtype: Annotated[
        str | None,
        option(
            "float32, bfloat16 or float16, also fp32, bf16 and fp16; also as --torch-dtype.",
            panel=MODEL,
            default="float32",
            parser=_dtype,
            metavar="DTYPE",
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        option(
            "CSV, JSONL or Parquet: caption, subject, attribute[, target].",
            panel=WHAT,
            default=f"a few of each attribute of {DEMO.name}'s probe set",
        ),
    ] = None,
    probe: Annotated[
        str | None,
        option("A whole built-in probe set; NAME@VERSION insists on its version.", panel=WHAT),
    ] = None,
    plan: Annotated[
        Path | None, option("A YAML plan; other plan options override its fields.", panel=WHAT)
    ] = None,
    measure: Annotated[
        list[str] | None,
        option(
            "caption, target, clean-image, clean-latent or margin; repeatable.",
            panel=WHAT,
            default="caption and target",
        ),
    ] = None,
    options: Annotated[
        Path | None,
        option(
            "YAML: the words of each attribute that the margin compares.",
            panel=WHAT,
            default="the captions' subjects",
        ),
    ] = None,
    part: Annotated[
        str | None, option("denoiser, text-encoder or both.", panel=WHERE, default="both")
    ] = None,
    kind: Annotated[
        list[Kind] | None,
        choice(
            "Kind of component to trace; repeatable",
            Kind,
            panel=WHERE,
            metavar="KIND",
            default="the paper's: " + ", ".join(PAPER_KINDS),
        ),
    ] = None,
    component: Annotated[
        list[str] | None,
        option(
            "Trace only this component, as `dqf components MODEL` lists it; repeatable.",
            panel=WHERE,
            default="all of --kind",
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        option(
            "Components that are patched together, COMPONENT or COMPONENT@WHERE: steps START:STOP, "
            "or a token of a text encoder; repeatable. Alone unless --component or --kind is "
            "given.",
            panel=WHERE,
            metavar="NAME=COMPONENT,...",
            default="none",
        ),
    ] = None,
    consecutive: Annotated[
        int | None,
        option(
            "Neighboring components of one kind that are patched together.",
            panel=WHERE,
            default="1",
        ),
    ] = None,
    window: Annotated[
        list[str] | None,
        option(
            f"Denoiser: steps at which to patch: {GRAMMAR}; repeatable.",
            panel=WHERE,
            default="all",
        ),
    ] = None,
    token: Annotated[
        list[TokenRole] | None,
        choice(
            "Text encoder: tokens at which to patch; repeatable",
            TokenRole,
            panel=WHERE,
            metavar="TOKEN",
            default=TokenRole.LAST_SUBJECT.value,
        ),
    ] = None,
    intervention: Annotated[
        list[Intervention] | None,
        choice(
            "Patch to make, also controls and ablations; repeatable",
            Intervention,
            panel=WHERE,
            metavar="INTERVENTION",
            default=Intervention.RESTORE.value,
        ),
    ] = None,
    patch: Annotated[
        list[PatchKind] | None,
        option(
            "Copy a component's whole output (state), or only what it adds to its input "
            "(contribution); repeatable.",
            panel=WHERE,
            metavar="PATCH",
            default=PatchKind.STATE.value,
        ),
    ] = None,
    screen: Annotated[
        Screen | None,
        choice(
            "Estimate all effects by one gradient pass per unit, in place of sampling",
            Screen,
            panel=WHERE,
            metavar="SCREEN",
            default="every patched run is sampled",
        ),
    ] = None,
    from_run: Annotated[
        str | None,
        option(
            "Trace exactly the states that this screened run ranks first, on a share of its "
            "captions; all else is as in its plan.",
            panel=WHERE,
            metavar="RUN",
            default="none",
            autocompletion=runs,
        ),
    ] = None,
    exact: Annotated[
        int | None,
        option(
            "With --from-run: number of states of each attribute and part.",
            panel=WHERE,
            metavar="K",
            default="required there",
            min=1,
        ),
    ] = None,
    random: Annotated[
        int | None,
        option(
            "With --from-run: states drawn from the others, which say what the screen missed.",
            panel=WHERE,
            metavar="N",
            default="as many as --exact",
            min=0,
        ),
    ] = None,
    share: Annotated[
        float | None,
        option(
            "With --from-run: share of each attribute's captions to trace.",
            panel=WHERE,
            metavar="SHARE",
            default="0.25",
            min=0.001,
            max=0.999,
        ),
    ] = None,
    reference: Annotated[
        list[str] | None,
        option(
            "Caption whose clean run mean, resample and other-caption take as source; repeatable.",
            panel=WHERE,
            default="eight of the captions, where one is needed",
        ),
    ] = None,
    corruption: Annotated[
        str | None,
        option(
            "Corruption: noise, or counterfactual, the captions' column of that name.",
            panel=CORRUPTION,
            default="noise",
        ),
    ] = None,
    occurrence: Annotated[
        str | None,
        option(
            "Mentions of the subject to corrupt: all, first or last.",
            panel=CORRUPTION,
            default="all",
        ),
    ] = None,
    noise: Annotated[
        list[float] | None,
        option(
            "Noise on the subject, in standard deviations of the embeddings; repeatable.",
            panel=CORRUPTION,
            default="the model's own, 8 for emoji-sd",
        ),
    ] = None,
    noise_absolute: Annotated[
        float | None,
        option(
            "Standard deviation of the noise in absolute terms, instead of --noise.",
            panel=CORRUPTION,
            default="as --noise says",
        ),
    ] = None,
    noise_at: Annotated[
        str | None,
        option(
            "Denoiser trace: side of the text encoder that is noised, input or output.",
            panel=CORRUPTION,
            default="input",
        ),
    ] = None,
    path: Annotated[
        str | None,
        option(
            "Text embeddings to corrupt and restore: tokens, pooled or both.",
            panel=CORRUPTION,
            default="both",
        ),
    ] = None,
    draws: Annotated[
        int | None,
        option("Noise draws per caption and seed.", panel=CORRUPTION, default="1"),
    ] = None,
    seed: Annotated[
        list[int] | None,
        option("Seed of the first latent; repeatable.", panel=SAMPLING, default="0"),
    ] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    scheduler: SchedulerOption = None,
    negative_prompt: Annotated[
        str | None, option("Negative prompt.", panel=SAMPLING, default="empty")
    ] = None,
    height: Annotated[int | None, option("Height in pixels.", panel=SAMPLING, default=OWN)] = None,
    width: Annotated[int | None, option("Width in pixels.", panel=SAMPLING, default=OWN)] = None,
    cfg_patch: Annotated[
        str | None,
        option(
            "Row of guidance to patch: cond, that of the caption, or both.",
            panel=SAMPLING,
            default="cond",
        ),
    ] = None,
    known: Annotated[
        str | None,
        option(
            "Default of --known in later commands: captions whose clean run scores at least this; "
            "all are traced.",
            panel=READING,
            metavar="MEASURE:SCORE",
            default="read all",
        ),
    ] = None,
    min_te: Annotated[
        float | None,
        option(
            "Default of --min-te in later commands: captions with at least this total effect; all "
            "are traced.",
            panel=READING,
            default="read all",
        ),
    ] = None,
) -> None:
    """Declares the options; never called."""
