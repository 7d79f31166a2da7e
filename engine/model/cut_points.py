"""Cut points: the components whose state holds everything upstream, found from the graph of a
forward pass without weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from engine.model.components import list_sites
from engine.model.hooks import Edit, HookPoint, patched, recording
from engine.model.model import Skeleton, token_embedding
from engine.model.shapes import forward, latent
from engine.model.weight_files import PartError
from schemas.errors import first_line


def cut_points(model: Skeleton) -> frozenset[str]:
    """Return the components through which every path from their network's input to the denoiser's
    output leads, by name.

    The input is the latent for the denoiser, the token embeddings for a text encoder: text may
    still enter the denoiser after a cut point.
    """
    networks = [model.denoiser, *(encoder.module for encoder in model.encoders)]
    configs = "\n".join(str(network.config) for network in networks)
    return _cut_points(_Architecture(configs=configs, model=model))


def check_fit(model: Skeleton) -> None:
    """Raise PartError if a model's networks cannot read one another's outputs, or have blocks in
    which no components are known."""
    try:
        cut_points(model)
    except Exception as error:  # a bad config can make a library raise anything
        raise PartError(
            f"its networks do not work together as their configs describe them: {first_line(error)}"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Architecture:
    """Networks that equal others of the same configs."""

    configs: str
    model: Skeleton = field(compare=False)


@lru_cache(maxsize=8)
def _cut_points(architecture: _Architecture) -> frozenset[str]:
    model, sites = architecture.model, list_sites(architecture.model)
    streams = [site for site in sites if site.component.has_contribution]
    inputs: dict[str, torch.Tensor] = {}

    def leaf_of(network: str) -> Edit:
        return lambda h: inputs.setdefault(network, h.detach().requires_grad_())

    leaves = {HookPoint(token_embedding(e.module)): leaf_of(e.name) for e in model.encoders}
    x = inputs[model.family.denoiser] = latent(model).requires_grad_()
    with torch.enable_grad(), patched(leaves), recording(s.spot for s in streams) as passed:
        output = forward(model, x)
    graph = _Graph.of(output)
    return frozenset(
        site.component.name
        for site in streams
        if not graph.reaches(
            inputs[site.component.name.split(".")[0]],
            without=[h.grad_fn for h in passed[site.spot]],
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """Autograd's graph of a tensor; node 0 made it."""

    number_of: dict[Any, int]
    parents: list[list[int]]
    leaves: dict[int, int]
    """Nodes of the tensors without history, by these tensors' `id`."""

    @classmethod
    def of(cls, output: torch.Tensor) -> "_Graph":
        """Return the graph of all that a tensor was made of."""
        nodes: list[Any] = [output.grad_fn]
        numbers: dict[Any, int] = {output.grad_fn: 0}
        parents: list[list[int]] = []
        leaves: dict[int, int] = {}
        for node in nodes:  # grows meanwhile
            if hasattr(node, "variable"):
                leaves[id(node.variable)] = numbers[node]
            before = [parent for parent, _ in node.next_functions if parent is not None]
            for parent in before:
                if numbers.setdefault(parent, len(nodes)) == len(nodes):
                    nodes.append(parent)
            parents.append([numbers[parent] for parent in before])
        return cls(number_of=numbers, parents=parents, leaves=leaves)

    def reaches(self, leaf: torch.Tensor, *, without: Sequence[Any]) -> bool:
        """Return whether a path from node 0 to a leaf leaves out the nodes of `without`."""
        seen = {self.number_of.get(node, -1) for node in without}
        waiting = [0]
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += self.parents[node]
        return self.leaves[id(leaf)] in seen
