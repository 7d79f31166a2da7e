"""`dqf edit list`, `diff`, `check`, `add` and `remove`: showing and changing edits."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options.editing import ImagesOption, OutOption
from cli.options.edits import EditArgument, check_is_edit
from cli.options.meant import SuggestingGroup
from cli.options.progress import with_progress_options
from cli.printing.edit_report import print_edit
from cli.printing.lines import note, say
from cli.printing.output import Format, FormatOption, print_rows

if TYPE_CHECKING:
    from jobs.editing.plan import EditPlan

app = typer.Typer(
    cls=SuggestingGroup, no_args_is_help=True, help="Show, change, evaluate and attack edits."
)


@app.command("list", epilog="Example: dqf edit list edits/demo --matrices")
def list_edit(
    folder: EditArgument,
    matrices: Annotated[
        bool, typer.Option("--matrices", help="List the changed matrices instead.")
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """List an edit's concepts and their replacements, or the matrices that it changes."""
    check_is_edit(folder)
    from engine.editing.forms import form_texts
    from jobs.editing.manifest import read_manifest

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
                "replacement": concept.replacement_text,
                "kind": concept.kind.value,
                "mode": concept.mode.value,
                "weight": concept.weight,
                "forms": ", ".join(form_texts(concept)) if manifest.settings.forms else "",
            }
            for concept in manifest.concepts
        ]
    )
    print_rows(rows, output_format)
    say(
        f"concepts: {len(manifest.concepts)}, matrices changed: {len(manifest.matrices)}; model "
        f"{manifest.model}, {manifest.created}",
        err=True,
    )


@app.command("diff", epilog="Example: dqf edit diff edits/demo edits/other")
def diff(
    first: EditArgument, second: EditArgument, output_format: FormatOption = Format.TABLE
) -> None:
    """Show how two edits differ: concepts, settings, and the distance of each matrix.

    The distance is the norm of the difference over that of the original matrix.
    """
    check_is_edit(first)
    check_is_edit(second)
    from jobs.editing.diff import diff_edits

    print_rows([asdict(row) for row in diff_edits(first, second)], output_format)


@app.command("check", epilog="Example: dqf edit check edits/demo")
def check(
    folder: EditArgument,
    lora: Annotated[
        Path | None,
        typer.Option(help="LoRA file to check.", show_default="that of the edit's folder"),
    ] = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Check that diffusers, after loading the edit's LoRA, gives the edited weights' outputs.

    One line for each matrix: applied, not applied, differs, or not in the edit; exit code 1 unless
    all are applied. Needs peft: `pip install 'dqf[lora]'`.
    """
    check_is_edit(folder)
    from jobs.editing.check import check_edit

    matrices = check_edit(folder, lora=lora, note=note)
    print_rows([asdict(matrix) for matrix in matrices], output_format)
    wrong = [matrix for matrix in matrices if not matrix.is_applied]
    summary = ", ".join(f"{matrix.matrix} {matrix.state}" for matrix in wrong)
    say(f"FAIL: {summary}" if wrong else "PASS", err=output_format is not Format.TABLE)
    raise typer.Exit(1 if wrong else 0)


@app.command("add", epilog="Example: dqf edit add edits/demo more.csv --out edits/demo-2")
@with_progress_options
def add(
    folder: EditArgument,
    concepts: Annotated[
        Path, typer.Argument(metavar="CONCEPTS", help="Concept file.", show_default=False)
    ],
    out: OutOption,
    images: ImagesOption = 2,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Make an edit with more concepts, solved again from the unedited weights."""
    check_is_edit(folder)
    from jobs.editing.update import with_added

    _make(with_added(folder, concepts, out=out, images=images), output_format)


@app.command("remove", epilog="Example: dqf edit remove edits/demo cat --out edits/demo-2")
@with_progress_options
def remove(
    folder: EditArgument,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="CONCEPT...", help="Concepts to remove from the edit.", show_default=False
        ),
    ],
    out: OutOption,
    images: ImagesOption = 2,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Make an edit without some concepts: the same weights as if it had never had them."""
    check_is_edit(folder)
    from jobs.editing.update import with_removed

    _make(with_removed(folder, names, out=out, images=images), output_format)


def _make(plan: "EditPlan", output_format: Format) -> None:
    from jobs.editing.edit import edit_batch

    print_edit(edit_batch(plan, note=note), plan.out, output_format)
