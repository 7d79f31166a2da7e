"""`dqf edit-batch`: one closed-form edit removes or replaces the concepts of a file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.job import arguments, follow_as_job, shared, shared_model
from cli.options.completion import runs
from cli.options.device import DeviceOption, cluster_on, use_here
from cli.options.editing import ImagesOption, OutOption
from cli.options.evaluation import ScorerOption
from cli.options.models import RevisionOption, VariantOption, check_name, model_option, named
from cli.options.panels import RUNNING, SOLVING, WHERE, option
from cli.options.progress import with_progress_options
from cli.options.run import AddressOption, WaitOption
from cli.options.runs import run_location
from cli.printing.edit_report import print_edit
from cli.printing.lines import note
from cli.printing.output import Format, FormatOption
from engine.files import read_bytes, refuse_occupied
from engine.model.registry import names_embedded
from schemas.edit_settings import EditSettings
from schemas.errors import ConceptError

OWN = EditSettings()
"""The settings of an edit where none is given."""


class Objective(StrEnum):
    """The objective that an edit minimizes."""

    RESIDUAL = "residual"
    PUBLISHED = "published"


@with_progress_options
def edit_batch(
    context: typer.Context,
    concepts: Annotated[
        Path,
        typer.Argument(
            metavar="CONCEPTS",
            help="CSV, JSONL, Parquet or YAML file: concept, replacement, kind, mode, weight, "
            "prompts, forms.",
        ),
    ],
    out: OutOption,
    from_run: Annotated[
        str | None,
        option(
            "Run whose top-ranked text-encoder component decides which layer is edited.",
            panel=WHERE,
            autocompletion=runs,
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        option(
            "Component to edit, a network or layer to edit everything editable in it, or a pattern "
            "with `*`; repeatable; see `dqf components MODEL`. `auto`: the MLPs of the layer that "
            "the run ranks first and of the next one, in every text encoder; without a run a "
            "transformer's text projection and that of its pooled embedding.",
            panel=WHERE,
            default="auto",
        ),
    ] = None,
    set: Annotated[
        str | None,
        option(
            "Set of the run's text-encoder components to edit instead, as `dqf trace sets RUN` "
            "names it: text-encoder-greedy.",
            panel=WHERE,
            metavar="NAME",
            default="none",
        ),
    ] = None,
    shared_projections: Annotated[
        bool,
        option(
            "Let --layer name single-stream blocks, whose projections the image's tokens pass "
            "too: every image changes, not only that of the concepts.",
            "--shared-projections",
            panel=WHERE,
        ),
    ] = False,
    model: Annotated[str | None, model_option("Model to edit.", default="the run's own")] = None,
    revision: RevisionOption = None,
    variant: VariantOption = None,
    scorer: ScorerOption = None,
    images: ImagesOption = 2,
    full_model: Annotated[
        bool, typer.Option("--full-model", help="Write a complete diffusers folder too.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the edit at --out, with its evaluation."),
    ] = False,
    ridge: Annotated[
        float | None,
        option(
            "lambda: weight that keeps the change small.", panel=SOLVING, default=f"{OWN.ridge:g}"
        ),
    ] = None,
    preserve: Annotated[
        float | None,
        option(
            "mu: weight on leaving captions without a concept unchanged.",
            panel=SOLVING,
            default=f"{OWN.preserve:g}",
            min=0.0,
            metavar="WEIGHT",
        ),
    ] = None,
    general: Annotated[
        float | None,
        option(
            "nu: weight on leaving general captions unchanged, by the covariance of their keys.",
            panel=SOLVING,
            default=f"{OWN.general:g}",
            min=0.0,
            metavar="WEIGHT",
        ),
    ] = None,
    exactly: Annotated[
        Path | None, option("Concept file of names that must not change.", panel=SOLVING)
    ] = None,
    keep: Annotated[
        Path | None,
        option("Concept file of names to keep besides those that the model knows.", panel=SOLVING),
    ] = None,
    forms: Annotated[
        bool,
        option(
            "Edit plurals, articles, capitals and possessives of a concept with it.",
            "--forms/--no-forms",
            panel=SOLVING,
        ),
    ] = True,
    embeddings: Annotated[
        bool,
        option(
            "Move the concepts' own token embeddings to their replacements' first; no LoRA carries "
            "them.",
            "--embeddings/--no-embeddings",
            panel=SOLVING,
        ),
    ] = False,
    objective: Annotated[
        Objective,
        option(
            "Objective: residual, or published, which reproduces the paper's notebook, bias "
            "included.",
            panel=SOLVING,
            metavar="OBJECTIVE",
        ),
    ] = Objective.RESIDUAL,
    actors: Annotated[
        int | None,
        option(
            "Ray actors that share the prompts.",
            panel=RUNNING,
            default="none: this process alone",
            min=1,
            metavar="N",
        ),
    ] = None,
    device: DeviceOption = None,
    address: AddressOption = None,
    wait: WaitOption = True,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Edit all CONCEPTS out of a model in one closed-form solve and write the edit's folder.

    The name `edit create` is the same command. An empty replacement removes the concept: an object
    becomes "object", a style "photo", a color "plain", an action "standing", a person "person". The
    folder holds the changed matrices, the same as LoRA files, `edit.json` and `before_after.png`.
    For a job, the run and the folder must be where the cluster's nodes find them too; only the
    job's log is printed, on stderr.
    """
    note(f"reading {concepts}")
    model = named(model, revision=revision, variant=variant)
    from jobs.cluster.address import check_address
    from jobs.cluster.submission import is_job_address
    from jobs.input.concepts import read_concepts

    read = read_concepts(concepts)
    if address and is_job_address(address):
        files = {
            name: path
            for name, path in (("concepts", concepts), ("exactly", exactly), ("keep", keep))
            if path
        }
        shipped = {name: f"{name}{path.suffix}" for name, path in files.items()}
        replaced = {
            **shipped,
            "from_run": from_run and shared(run_location(from_run)),
            "model": shared_model(model),
            "revision": None,
            "variant": None,
            "scorer": shared_model(scorer),
        }
        follow_as_job(
            arguments(context, replaced),
            address=address,
            out=out,
            waits=wait,
            files={
                shipped[name]: read_bytes(path, error=ConceptError) for name, path in files.items()
            },
            # A run may be of any model.
            ships_reference_model=names_embedded(model or "emoji-sd", scorer),
        )
    if address:
        check_address(address)
    use_here(device)
    if model is not None:
        check_name(model)
    from jobs.editing.manifest import MANIFEST

    refuse_occupied(out, replacing=MANIFEST if overwrite else None)
    from jobs.editing.request import EditRequest, run_edit  # takes seconds: it imports PyTorch

    request = EditRequest(
        out=out,
        run=None if from_run is None else run_location(from_run),
        layers=tuple(layer or ()),
        component_set=set,
        model=model,
        scorer=scorer,
        images=images,
        ridge=ridge,
        preserve=preserve,
        general=general,
        exactly=exactly,
        keep=keep,
        forms=forms,
        embeddings=embeddings,
        objective=objective.value,
        full_model=full_model,
        overwrite=overwrite,
        with_shared=shared_projections,
        # In a job RAY_ADDRESS names its cluster, also where no actors share the prompts.
        cluster=cluster_on(device, address=address, actors=actors) if actors else None,
    )
    print_edit(run_edit(read, request, note=note), out, output_format)
