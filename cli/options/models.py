"""Names of models that options give."""

from engine.files import is_folder


def check_name(model: str) -> None:
    """Raise ModelUnavailable if no model has this name, before torch is imported, which is slow."""
    from engine.model.registry import checked_source

    if not is_folder(checked_source(model)):
        from engine.model.hub import config_folder

        config_folder(model)
