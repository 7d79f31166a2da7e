"""`dqf models` and `dqf components`."""

from typing import Annotated

import typer

from cli.options.completion import models as completed_models
from cli.options.models import RevisionOption, VariantOption, check_name, full_name
from cli.options.panels import WHERE, choice
from cli.printing.output import Format, FormatOption, print_rows
from schemas.component import PAPER_KINDS, Kind


def models(output_format: FormatOption = Format.TABLE) -> None:
    """List the models known by name; any diffusers folder or hub id works as well."""
    from engine.model.registry import BUILT_IN

    rows: list[dict[str, object]] = [
        {
            "model": model.name,
            "scorer": model.scorer,
            "steps": model.steps,
            "guidance": model.guidance,
            "description": model.description,
        }
        for model in BUILT_IN.values()
    ]
    print_rows(rows, output_format)


def components(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Built-in name, diffusers folder or hub id.",
            autocompletion=completed_models,
        ),
    ],
    kind: Annotated[
        list[Kind] | None,
        choice(
            "Only this kind; repeatable",
            Kind,
            panel=WHERE,
            metavar="KIND",
            default="the paper's: " + ", ".join(PAPER_KINDS),
        ),
    ] = None,
    revision: RevisionOption = None,
    variant: VariantOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """List a model's components in network order, with shapes and parameter counts.

    A shape is that of one row's activation: channels x height x width or positions x channels.
    A component with `contribution` returns its input and what it adds; the state of a `cut_point`
    holds everything upstream.
    The image does not depend on a dead component, by construction: it is traced only by its name.
    """
    model = full_name(model, revision=revision, variant=variant)
    check_name(model)
    from engine.model.components import list_components
    from engine.model.cut_points import cut_points
    from engine.model.opening import open_skeleton
    from engine.model.shapes import component_shapes

    skeleton = open_skeleton(model)
    shapes, cuts = component_shapes(skeleton), cut_points(skeleton)
    rows: list[dict[str, object]] = [
        {
            "component": component.name,
            "part": component.part.value,
            "kind": component.kind.value,
            "layer": component.layer,
            "shape": " x ".join(str(size) for size in shapes[component.name]),
            "num_parameters": component.num_parameters,
            "contribution": component.has_contribution,
            "cut_point": component.name in cuts,
            "is_dead": component.is_dead,
        }
        for component in list_components(skeleton, kind or PAPER_KINDS)
    ]
    print_rows(rows, output_format)
