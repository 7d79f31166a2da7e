"""The sums over general captions that emoji-sd ships: python -m engine.reference.statistics."""

from engine.editing.covariance import SHIPPED, computed_sums, file_name, write_sums
from engine.model.hub import source_folder
from engine.model.opening import open_model
from engine.model.vocabulary import read_phrasebook

COMPONENTS = ("text_encoder.layers.0.self_attn", "text_encoder.layers.0.mlp")
"""The components in which its concepts are edited best."""


def main() -> None:
    """Write a file for each component."""
    model = open_model("emoji-sd", device="cpu")
    book = read_phrasebook(source_folder("emoji-sd"))
    for component in COMPONENTS:
        sums = computed_sums(model, component, book)
        write_sums(SHIPPED / file_name(component, book), sums)


if __name__ == "__main__":
    main()
