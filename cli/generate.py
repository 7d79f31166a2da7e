"""`dqf generate`: draw prompts, with and without an edit."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options.models import check_name
from cli.printing.lines import say
from cli.printing.output import note


def generate(
    prompts: Annotated[list[str], typer.Argument(help="What to draw.", metavar="PROMPT...")],
    model: Annotated[
        str | None,
        typer.Option(help="Built-in name, diffusers folder or hub id; else the edit's, emoji-sd."),
    ] = None,
    edit: Annotated[
        Path | None, typer.Option(help="Folder of an edit: draws before and after side by side.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Of the first latent; repeatable. 0 if none.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Denoising steps; the model's own if none.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=1.0, max=100.0, help="Scale; the model's own if none.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="ddim, euler, dpm++ ...; the model's own by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="PNG file, replaced if it exists.")] = Path("image.png"),
    only_after: Annotated[
        bool, typer.Option("--only-after", help="Edited images alone, in their own size.")
    ] = False,
) -> None:
    """Draw each PROMPT from each seed and print the paths of the images.

    Without an edit, and with --only-after, every image is a PNG of its own; several are numbered.
    With an edit, one PNG shows a row a prompt, images of the same latent before and after.
    """
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
