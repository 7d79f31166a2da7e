"""Reading inside a CLIP text encoder.

Shapes: R rows, L token positions, D text width.
"""

from typing import Any

import torch

from engine.model.hooks import HookPoint, Side, recording


def penultimate(encoder: Any, ids_RL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the input of the last layer, hidden_RLD, and the encoder's first output.

    `output_hidden_states=True` would not do: transformers 5 collects them with hooks of its own,
    which stay, and which see each layer's output before an intervention replaces it.
    """
    text_model = getattr(encoder, "text_model", encoder)
    spot = HookPoint(text_model.encoder.layers[-1], Side.INPUT)
    with recording([spot]) as passed:
        output = encoder(ids_RL)[0]
    return passed[spot][0], output
