"""The edit of the published notebook, to reproduce its results.

Prompts: bare and three openings. Pairs: the last subject token and every position after it, each
counted once; where the replacement's prompt ends first its last position stands for the rest.
lambda is not scaled by the number of keys, and the wanted outputs include the bias: see
`engine.editing.closed_form`.

Shapes: P rows, D inputs, E outputs of the projection (suffixes `_PD`, `_E`).
"""

import time
from collections.abc import Sequence

import torch

from engine.editing.closed_form import edited_weight, published_weight
from engine.editing.editable import editable
from engine.editing.positions import Rows
from engine.editing.readers import encoder_reader, read_prompts
from engine.editing.solve import EditSolution
from engine.model.model import Diffusion
from schemas.caption import Caption
from schemas.component import Part
from schemas.concept import Concept
from schemas.errors import ConceptError

OPENINGS = ("", "A photo of ", "An image of ", "A picture of ")
RIDGE = 0.01
"""lambda of the notebook."""


@torch.inference_mode()
def published_edit(
    model: Diffusion, concepts: Sequence[Concept], *, component: str, ridge: float = RIDGE
) -> EditSolution:
    """Return the edited weight of a text-encoder projection as the notebook solves it.

    ConceptError: the component has no bias, which the notebook's wanted outputs include.
    """
    start = time.perf_counter()
    target = editable(model, component)
    (name, layer), *others = target.projections.items()
    is_text = target.component.part is Part.TEXT_ENCODER
    if others or layer.bias is None or not is_text:
        raise ConceptError(
            f"{component} has no single projection with a bias: the published objective edits "
            "out_proj or fc2 of a CLIP text encoder; leave --objective out"
        )
    captions = [c for concept in concepts for c in _captions(concept)]
    prompts = read_prompts(model, target.component, captions)
    reader, length = encoder_reader(model, target), prompts.length
    places = [_places(prompts.spans[n].last, prompts.spans[n + 1].last, length)
              for n in range(0, len(captions), 2)]  # fmt: skip
    keys = [
        reader.read(
            prompts,
            Rows(
                prompt_P=torch.cat(
                    [torch.full_like(p[side], 2 * n + side) for n, p in enumerate(places)]
                ),
                place_P=torch.cat([p[side] for p in places]),
                weight_P=torch.ones(sum(len(p[side]) for p in places)),
            ),
        ).key_PD
        for side in (0, 1)
    ]
    collected = time.perf_counter()
    original = layer.weight.detach()
    weight_ED = published_weight(
        original.cpu(), layer.bias.cpu(), source_PD=keys[0], target_PD=keys[1], ridge=ridge
    )
    change_ED = weight_ED - original.cpu().double()
    return EditSolution(
        weights={name: edited_weight(original, change_ED)},
        changes={name: change_ED},
        originals={name: original},
        key_pairs=len(keys[0]),
        kept_keys=0,
        key_seconds=collected - start,
        solve_seconds=time.perf_counter() - collected,
    )


def _captions(concept: Concept) -> list[Caption]:
    """Return the prompts of a concept, each followed by that of its replacement."""
    return [
        Caption(caption=f"{opening}{text}", subject=text, attribute=concept.kind.value)
        for opening in OPENINGS
        for text in (concept.concept, concept.replacement_text)
    ]


def _places(source_last: int, target_last: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    source_P = torch.arange(source_last, length)
    return source_P, (source_P + target_last - source_last).clamp(max=length - 1)
