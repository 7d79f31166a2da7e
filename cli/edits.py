"""`dqf edit list` and `dqf edit diff`: looking into the folders of edits."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.output import Format, FormatOption, print_rows

app = typer.Typer(no_args_is_help=True, help="Look into edits and evaluate them.")

EditArgument = Annotated[Path, typer.Argument(help="Folder of an edit.", show_default=False)]


@app.command("list", epilog="Example: dqf edit list edits/demo --matrices")
def list_edit(
    folder: EditArgument,
    matrices: Annotated[
        bool, typer.Option("--matrices", help="Changed matrices in place of concepts.")
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """List an edit's concepts and what they become, or the matrices that it changes."""
    from jobs.edit_folder import read_manifest

    manifest = read_manifest(folder)
    rows: list[dict[str, object]] = (
        [
            {
                "matrix": matrix.name,
                "shape": " x ".join(map(str, matrix.shape)),
                "rank": matrix.rank,
                "relative_change": matrix.relative_change,
            }
            for matrix in manifest.matrices
        ]
        if matrices
        else [
            {
                "concept": concept.concept,
                "target": concept.target_text,
                "kind": concept.kind.value,
                "mode": concept.mode.value,
                "weight": concept.weight,
            }
            for concept in manifest.concepts
        ]
    )
    print_rows(rows, output_format)
    typer.echo(
        f"{len(manifest.concepts)} concepts, {len(manifest.matrices)} matrices of "
        f"{manifest.model}, {manifest.created}",
        err=True,
    )


@app.command("diff", epilog="Example: dqf edit diff edits/demo edits/other")
def diff(
    first: EditArgument, second: EditArgument, output_format: FormatOption = Format.TABLE
) -> None:
    """Show what differs between two edits: concepts, settings, and each matrix's distance.

    The distance is the norm of the difference over that of the original matrix.
    """
    from jobs.edit_diff import diff_edits

    print_rows([asdict(row) for row in diff_edits(first, second)], output_format)
