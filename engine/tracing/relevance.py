"""Relevance patching's backward pass: rules of layer-wise relevance propagation in place of
derivatives (RelP; Jafari et al. 2025).

A derivative says what an infinitesimal change does; where a gate saturates or a norm divides, a
whole activation that is replaced does something else. Under these rules every network is linear in
what passes through it, with the gates, norms and attentions that the forward pass had:

- a norm's denominator is a constant;
- GELU and SiLU are x times a gate, which is a constant, as are sigmoid and tanh;
- the weights of an attention are a constant, so that it is linear in its values;
- of a product of two activations of one shape, as in a gated feed-forward, each gets half.

A product with a vector that is spread over tokens is a modulation: its derivative stays, as half of
the stream at every block would leave nothing after a few. So does that of a product of matrices
other than with an attention's weights, as in linear attention. Values are those of the forward
pass, up to rounding.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class RelevanceRules(TorchFunctionMode):
    """Makes the graph of what is computed until exit by the rules."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Return the function's result, whose graph follows the rule of the function, if any."""
        given: dict[str, Any] = kwargs or {}
        if not torch.is_grad_enabled():
            return func(*args, **given)
        rule = RULES.get(func)
        return func(*args, **given) if rule is None else rule(func, *args, **given)


def _constant(func: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    return func(*args, **kwargs).detach()


def _silu(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return x * torch.sigmoid(x).detach()


def _gelu(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    gate = func(x, *args, **kwargs) / x.where(x != 0, 1)
    return x * gate.where(x != 0, 0.5).detach()


def _attention(
    func: Any, query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    return func(query.detach(), key.detach(), *args, **kwargs)


def _layer_norm(
    func: Any,
    x: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    return _scaled(_standardized(x, dims, eps), weight, bias)


def _rms_norm(
    func: Any,
    x: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    least = torch.finfo(x.dtype).eps if eps is None else eps
    scale = torch.rsqrt(x.float().square().mean(dims, keepdim=True) + least).to(x.dtype)
    return _scaled(x * scale.detach(), weight, None)


def _group_norm(
    func: Any,
    x: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    grouped = x.reshape(len(x), num_groups, -1)
    normed = _standardized(grouped, (-1,), eps).reshape(x.shape)
    by_channel = (1, -1, *([1] * (x.ndim - 2)))
    return _scaled(
        normed,
        None if weight is None else weight.view(by_channel),
        None if bias is None else bias.view(by_channel),
    )


def _standardized(x: torch.Tensor, dims: tuple[int, ...], eps: float) -> torch.Tensor:
    """Return (x - mean) / std, where the standard deviation is a constant."""
    wide = x.float()
    centered = wide - wide.mean(dims, keepdim=True)
    scale = torch.rsqrt(centered.square().mean(dims, keepdim=True) + eps)
    return (centered * scale.detach()).to(x.dtype)


def _scaled(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


def _product(func: Any, x: Any, y: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    is_half = (
        isinstance(x, torch.Tensor)
        and isinstance(y, torch.Tensor)
        and x.requires_grad
        and y.requires_grad
        and x.shape == y.shape
    )
    if not is_half:
        return func(x, y, *args, **kwargs)
    return (func(x, y.detach()) + func(x.detach(), y)) / 2


Rule = Callable[..., torch.Tensor]
RULES: Mapping[Any, Rule] = {
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.silu: _silu,
    F.gelu: _gelu,
    F.scaled_dot_product_attention: _attention,
    # Norms that networks write out divide by a root; T5's GELU has a tanh, CLIP's a sigmoid.
    **dict.fromkeys((torch.rsqrt, torch.Tensor.rsqrt), _constant),
    **dict.fromkeys((torch.sigmoid, torch.Tensor.sigmoid, F.sigmoid), _constant),
    **dict.fromkeys((torch.tanh, torch.Tensor.tanh, F.tanh), _constant),
    **dict.fromkeys((F.softmax, torch.softmax, torch.Tensor.softmax), _constant),
    **dict.fromkeys((torch.mul, torch.Tensor.mul, torch.Tensor.__mul__), _product),
}
"""The rule of each function that has one."""
