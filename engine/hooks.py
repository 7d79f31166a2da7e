"""Replacing and reading activations: the only file that registers hooks.

Hooks live on an ExitStack: leaving the context, also by an exception, removes every one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

Edit = Callable[[torch.Tensor], torch.Tensor]
"""A pure function from a module's output to the output that takes its place."""


@contextmanager
def patched(edits: Mapping[nn.Module, Edit]) -> Iterator[None]:
    """Replace the output of each module by `edit(output)` until exit.

    Of a module that returns a tuple the first element is the output.
    """
    with ExitStack() as stack:
        for module, edit in edits.items():
            stack.callback(module.register_forward_hook(_hook(edit)).remove)
        yield


def _hook(edit: Edit) -> Callable[..., Any]:
    def replace(_module: nn.Module, _args: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    return replace


class _ReachedError(Exception):
    """Ends a forward pass once the wanted input was read."""


def input_of(module: nn.Module, forward: Callable[[], object]) -> torch.Tensor:
    """Return the first input that `module` reads in `forward()`, running nothing after that.

    RuntimeError: `forward` never calls the module.
    """
    read: list[torch.Tensor] = []

    def stop(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        read.append(args[0].detach().clone())
        raise _ReachedError

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(stop).remove)
        try:
            forward()
        except _ReachedError:
            return read[0]
    raise RuntimeError("the forward pass ended without calling the module")
