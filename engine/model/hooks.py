"""Replacing and reading activations: the only file that registers hooks.

Hooks live on an ExitStack: leaving the context, also by an exception, removes every one.

Shapes: R rows; the rest of an activation's shape is free.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

Edit = Callable[[torch.Tensor], torch.Tensor]
"""Returns the activation that replaces the given one. It may change the given one in place: a
module's result belongs to it alone, and an activation that several modules read is copied first."""


class Side(Enum):
    """Selects one of a module's activations."""

    OUTPUT = auto()
    """Its result, or one element of a tuple."""
    OUTPUTS = auto()
    """Every tensor of its result: a UNet block returns skip connections besides its output."""
    INPUT = auto()
    """Its first positional argument."""
    THROUGH = auto()
    """Every tensor of its result, its rows followed by those of the argument that it is made of: of
    a transformer's block, the streams after and before it."""
    MASK = auto()
    """Its argument `attention_mask`, where it has one: which text rows a cross-attention reads."""
    TEXT = auto()
    """Its argument `encoder_hidden_states`: the text rows that a cross-attention reads."""


KEYWORDS = {Side.TEXT: "encoder_hidden_states", Side.MASK: "attention_mask"}
"""The keyword arguments among the activations."""


class HookPoint(NamedTuple):
    """One activation of a module."""

    module: nn.Module
    side: Side = Side.OUTPUT
    element: int = 0
    """Number of the element where the result is a tuple: a joint attention returns the image's
    tokens and the text's, its block the text's and the image's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationCopy:
    """Replacement of one row's activation by the mean of its source rows, or by zero without
    sources."""

    row: int
    sources: tuple[int, ...]
    positions: tuple[int, ...] | slice | None = None
    """Token positions (dimension 1) to write, by default all."""
    channels: slice | None = None
    """Channels (the last dimension) to write, by default all."""


def copy_rows(writes: Sequence[ActivationCopy]) -> Edit:
    """Return the edit that makes all copies in place; no source row may be one that is written.

    The edit raises ValueError for positions of an activation that is not rows x tokens x channels.
    """

    def edit(h: torch.Tensor) -> torch.Tensor:
        for write in writes:
            of_row = _part_of_row(h, write)
            h[write.row][of_row] = _mean(h, write.sources)[of_row]
        return h

    return edit


def first_order(
    write: ActivationCopy,
    h: torch.Tensor,
    *,
    sources_h: torch.Tensor,
    slopes: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Return the first-order effect of a copy, <copied - own, slope>, float32, for each slope.

    `write` counts its sources in `sources_h` and its row in the activation `h`; a slope is the
    gradient of a value with respect to `h`.
    """
    of_row, copied = _part_of_row(h, write), _mean(sources_h, write.sources)
    change = (copied.float() - h[write.row].float())[of_row]
    return torch.stack([(change * slope[write.row][of_row].float()).sum() for slope in slopes])


def _part_of_row(h: torch.Tensor, write: ActivationCopy) -> Any:
    """Return the index of the entries of a row that are replaced."""
    channels = (..., write.channels or slice(None))
    if write.positions is None:
        return channels
    if h.ndim != 3:
        raise ValueError(
            f"an activation of shape {tuple(h.shape)} has no token positions: it is not rows x "
            "tokens x channels"
        )
    places = write.positions if isinstance(write.positions, slice) else list(write.positions)
    return (places, *channels)


def _mean(h: torch.Tensor, sources: tuple[int, ...]) -> torch.Tensor:
    if len(sources) == 1:
        return h[sources[0]]
    if not sources:
        return torch.zeros_like(h[0])
    return h[list(sources)].float().mean(0).to(h.dtype)


@contextmanager
def patched(edits: Mapping[HookPoint, Edit]) -> Iterator[None]:
    """Replace the activation at each hook point by `edit(activation)` until exit."""
    with ExitStack() as stack:
        for spot, edit in edits.items():
            stack.callback(_register(spot, edit).remove)
        yield


def _register(spot: HookPoint, edit: Edit) -> RemovableHandle:
    module, side, element = spot
    if side is Side.INPUT:
        return module.register_forward_pre_hook(lambda _m, args: (edit(args[0]), *args[1:]))
    if side in KEYWORDS:
        hook = _keyword_hook(KEYWORDS[side], edit)
        return module.register_forward_pre_hook(hook, with_kwargs=True)
    if side is Side.THROUGH:
        return module.register_forward_hook(_through_hook(edit), with_kwargs=True)
    if side is Side.OUTPUTS:
        return module.register_forward_hook(lambda _m, _args, output: _every(edit, output))
    return module.register_forward_hook(lambda _m, _args, output: _one(edit, output, element))


def _keyword_hook(name: str, edit: Edit) -> Callable[..., Any]:
    def replace(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get(name) is None:
            return args, kwargs
        # Every cross-attention reads the same.
        return args, {**kwargs, name: edit(kwargs[name].clone())}

    return replace


def _through_hook(edit: Edit) -> Callable[..., Any]:
    def passed(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return edit(torch.cat([after, before]))[: len(after)]

    def replace(_module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        image = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        if not isinstance(output, tuple):
            return passed(output, image)
        text_after, image_after = output  # None after a last block, after which nothing reads it
        text = kwargs["encoder_hidden_states"]
        text_after = None if text_after is None else passed(text_after, text)
        return text_after, passed(image_after, image)

    return replace


def _one(edit: Edit, output: Any, element: int) -> Any:
    """Return the output with one element edited; an element that is None stays so."""
    if not isinstance(output, tuple):
        return edit(output)
    changed = list(output)
    changed[element] = None if output[element] is None else edit(output[element])
    return tuple(changed)


def _every(edit: Edit, output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(_every(edit, part) for part in output)
    return None if output is None else edit(output)


@contextmanager
def recording(spots: Iterable[HookPoint]) -> Iterator[dict[HookPoint, list[torch.Tensor]]]:
    """Yield a mapping that collects every activation that passes each hook point until exit."""
    with _collecting(spots, lambda h: h) as passed:
        yield passed


@contextmanager
def differentiated(spots: Iterable[HookPoint]) -> Iterator[dict[HookPoint, list[torch.Tensor]]]:
    """Yield a mapping as `recording` does, of activations that a gradient can be taken of.

    What comes after the hook point reads the collected tensor, and nothing else does: neither
    another reader of a module's input, nor what the module returns unchanged.
    """

    def node(h: torch.Tensor) -> torch.Tensor:
        return h.view_as(h) if h.requires_grad else h.detach().requires_grad_()

    with _collecting(spots, node) as passed:
        yield passed


@contextmanager
def _collecting(
    spots: Iterable[HookPoint], node: Edit
) -> Iterator[dict[HookPoint, list[torch.Tensor]]]:
    passed: dict[HookPoint, list[torch.Tensor]] = {spot: [] for spot in spots}

    def collector(spot: HookPoint) -> Edit:
        def collect(h: torch.Tensor) -> torch.Tensor:
            passed[spot].append(node(h))
            return passed[spot][-1]

        return collect

    with patched({spot: collector(spot) for spot in passed}):
        yield passed


@contextmanager
def count_rows(module: nn.Module, count: Callable[[int], None]) -> Iterator[None]:
    """Call `count` with the number of rows each time a network is evaluated, until exit."""

    def counted(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        count(len(args[0]))

    with module.register_forward_pre_hook(counted):
        yield


class _ReachedError(Exception):
    """Ends a forward pass once every wanted activation has passed."""


def read_until(spots: Sequence[HookPoint], forward: Callable[[], object]) -> list[torch.Tensor]:
    """Return the first activation that passes each hook point in `forward()`, and run nothing after
    it.

    RuntimeError: `forward` never reaches one of the hook points.
    """
    read: dict[HookPoint, torch.Tensor] = {}

    def reader(spot: HookPoint) -> Edit:
        def note(h: torch.Tensor) -> torch.Tensor:
            read.setdefault(spot, h.detach().clone())
            if len(read) == len(set(spots)):
                raise _ReachedError
            return h

        return note

    with patched({spot: reader(spot) for spot in spots}):
        try:
            forward()
        except _ReachedError:
            return [read[spot] for spot in spots]
    raise RuntimeError("the forward pass ended without reaching every hook point")
