"""The sums over general captions that ship with the embedded models.

`python -m engine.reference.statistics` writes them.
"""

import shutil

from engine.editing.covariance import SHIPPED, computed_sums, file_name, write_sums
from engine.model.hub import source_folder
from engine.model.opening import open_model
from engine.model.vocabulary import read_phrasebook

COMPONENTS = {
    "emoji-sd": ("text_encoder.layers.0.mlp", "text_encoder.layers.1.mlp"),
    "emoji-dit": ("transformer.context_embedder", "transformer.time_text_embed.text_embedder"),
}
"""The components that an edit changes by default."""


def main() -> None:
    """Write a file for each component, in place of those that are there."""
    for name, components in COMPONENTS.items():
        model, book = open_model(name, device="cpu"), read_phrasebook(source_folder(name))
        shutil.rmtree(SHIPPED[name], ignore_errors=True)
        SHIPPED[name].mkdir()
        for component in components:
            sums = computed_sums(model, component, book)
            write_sums(SHIPPED[name] / file_name(component, book), sums)


if __name__ == "__main__":
    main()
