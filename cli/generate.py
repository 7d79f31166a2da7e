"""`dqf generate`: draw prompts, with and without an edit."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options.completion import edits
from cli.options.device import DeviceOption, use_here
from cli.options.edits import check_is_edit, edit_folder
from cli.options.models import RevisionOption, VariantOption, check_name, model_option, named
from cli.options.panels import SAMPLING, option
from cli.options.progress import with_progress_options
from cli.options.sampling import GuidanceOption, SchedulerOption, StepsOption
from cli.printing.lines import note, say


@with_progress_options
def generate(
    prompts: Annotated[list[str], typer.Argument(help="Prompts to draw.", metavar="PROMPT...")],
    model: Annotated[
        str | None,
        model_option(
            "Built-in name, diffusers folder or hub id.", default="the edit's, or emoji-sd"
        ),
    ] = None,
    revision: RevisionOption = None,
    variant: VariantOption = None,
    edit: Annotated[
        Path | None,
        typer.Option(
            parser=edit_folder,
            metavar="EDIT",
            autocompletion=edits,
            help="Name or folder of an edit: before and after are drawn side by side.",
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        option(
            "Seed of the first latent; repeatable.",
            panel=SAMPLING,
            default="0",
            min=0,
            max=2**63 - 1,
        ),
    ] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    scheduler: SchedulerOption = None,
    device: DeviceOption = None,
    out: Annotated[Path, typer.Option(help="PNG file, replaced if it exists.")] = Path("image.png"),
    only_after: Annotated[
        bool, typer.Option("--only-after", help="Only the edited images, in full size.")
    ] = False,
) -> None:
    """Draw each PROMPT from each seed and print the paths of the images.

    Without an edit, or with --only-after, every image is a separate PNG; several are numbered. With
    an edit, one PNG has a row per prompt, with images of the same latent before and after.
    """
    note(f"opening {model or edit or 'emoji-sd'}")
    if edit is not None:
        check_is_edit(edit)
    use_here(device)
    model = named(model, revision=revision, variant=variant)
    if model is not None:
        check_name(model)
    from jobs.editing.generate import Drawing, draw_before_and_after, draw_images
    from schemas.errors import PlanError

    if only_after and edit is None:
        raise PlanError("--only-after needs an --edit")
    drawing = Drawing(
        prompts=tuple(prompts),
        seeds=tuple(seed or [0]),
        model=model,
        edit=edit,
        steps=steps,
        guidance=guidance,
        scheduler=scheduler,
    )
    if edit is None or only_after:
        paths = draw_images(drawing, out=out, note=note)
    else:
        paths = [draw_before_and_after(drawing, out=out, note=note)]
    for path in paths:
        say(path)
