"""Names of models that options give."""

from typing import Annotated

from cli.options.completion import models
from cli.options.panels import MODEL, option
from engine.files import is_folder

RevisionOption = Annotated[
    str | None,
    option("Branch, tag or commit of a model of the hub, as MODEL@REVISION.", panel=MODEL),
]


def model_option(text: str, *, default: str) -> object:
    """Return the option `--model`; `default` says which model holds without it."""
    return option(text, panel=MODEL, default=default, autocompletion=models)


def revised(model: str | None, revision: str | None) -> str | None:
    """Return a name with a revision, None where no model is named; PlanError as `revised_name`."""
    from schemas.errors import PlanError

    if model is not None:
        return revised_name(model, revision)
    if revision is not None:
        raise PlanError(f"--revision {revision} is of a model of the hub: name one by --model")
    return None


def revised_name(model: str, revision: str | None) -> str:
    """Return a model's name with a revision; PlanError if the model has none or one already."""
    from engine.model.registry import model_source
    from schemas.errors import PlanError

    if revision is None:
        return model
    if is_folder(model_source(model)):
        raise PlanError(f"--revision {revision} is of a model of the hub, which {model} is not")
    if "@" in model:
        raise PlanError(f"--revision {revision}: model {model} has a revision already")
    return f"{model}@{revision}"


def check_name(model: str) -> None:
    """Raise ModelUnavailable if no model has this name, before torch is imported, which is slow."""
    from engine.model.registry import checked_source

    if not is_folder(checked_source(model)):
        from engine.model.hub import config_folder

        config_folder(model)
