"""Names of models that options give."""

from typing import Annotated

from cli.options.completion import models
from cli.options.panels import MODEL, option
from engine.files import is_folder

RevisionOption = Annotated[
    str | None,
    option("Branch, tag or commit of a model of the hub, as MODEL@REVISION.", panel=MODEL),
]
VariantOption = Annotated[
    str | None,
    option(
        "Variant of the weights, such as fp16, where a part has several; as MODEL#VARIANT.",
        panel=MODEL,
        default="the plain ones, or else the only one",
    ),
]


def model_option(text: str, *, default: str) -> object:
    """Return the option `--model`; `default` says which model holds without it."""
    return option(text, panel=MODEL, default=default, autocompletion=models)


def named(model: str | None, *, revision: str | None, variant: str | None) -> str | None:
    """Return a model's name with its revision and variant, None where no model is named; PlanError
    as `full_name`."""
    from schemas.errors import PlanError

    if model is not None:
        return full_name(model, revision=revision, variant=variant)
    if revision is not None:
        raise PlanError(f"--revision {revision} is of a model of the hub: name one by --model")
    if variant is not None:
        raise PlanError(f"--variant {variant} is of a model's weights: name one by --model")
    return None


def full_name(model: str, *, revision: str | None, variant: str | None) -> str:
    """Return a model's name with its revision and variant.

    PlanError: the name has one already, or the model has no revisions.
    """
    from engine.model.registry import model_source, split_variant, with_variant
    from schemas.errors import PlanError

    plain, own = split_variant(model)
    if variant is not None and own is not None:
        raise PlanError(f"--variant {variant}: model {model} has a variant already")
    if revision is not None:
        if is_folder(model_source(model)):
            raise PlanError(f"--revision {revision} is of a model of the hub, which {model} is not")
        if "@" in plain:
            raise PlanError(f"--revision {revision}: model {model} has a revision already")
        plain = f"{plain}@{revision}"
    return with_variant(plain, variant or own)


def check_name(model: str) -> None:
    """Raise ModelUnavailable if no model has this name, before torch is imported, which is slow."""
    from engine.model.registry import checked_source

    if not is_folder(checked_source(model)):
        from engine.model.hub import config_folder

        config_folder(model)
