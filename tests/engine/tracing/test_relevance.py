"""The rules of relevance patching: what they leave, and what they conserve."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from engine.tracing.relevance import RelevanceRules


def slope_of(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the function's value, and the gradient of its sum by the rules."""
    leaf = x.clone().requires_grad_()
    with RelevanceRules():
        y = function(leaf)
    return y.detach(), torch.autograd.grad(y.sum(), leaf)[0]


def without_bias(module: nn.Module) -> nn.Module:
    """Return the module with all biases at zero."""
    with torch.no_grad():
        for name, weights in module.named_parameters():
            if name.endswith("bias"):
                weights.zero_()
    return module.eval().requires_grad_(False)


FUNCTIONS = {
    "layer norm": nn.LayerNorm(8),
    "group norm": nn.Sequential(nn.Unflatten(1, (4, 2)), nn.GroupNorm(2, 4), nn.Flatten(1)),
    "rms norm": nn.RMSNorm(8),
    "T5's norm, written out": T5LayerNorm(8),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU(approximate="tanh"),
    "gated feed-forward": FeedForward(8, activation_fn="geglu"),
    "feed-forward": FeedForward(8, activation_fn="gelu-approximate"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_biases_the_slopes_share_out_the_value(name: str) -> None:
    """f(x) = <x, slope>: a network is linear under the rules; only a norm's mean is taken off."""
    torch.manual_seed(0)
    function, x = without_bias(FUNCTIONS[name]), torch.randn(3, 8)
    y, slope = slope_of(function, x)
    assert torch.allclose(y, function(x), atol=1e-5)
    assert float((x * slope).sum()) == pytest.approx(float(y.sum()), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["silu", "gelu", "gated feed-forward", "layer norm"])
def test_the_slope_is_not_the_derivative(name: str) -> None:
    """A rule that did nothing would pass no other test of these by chance."""
    torch.manual_seed(0)
    function, x = without_bias(FUNCTIONS[name]), torch.randn(3, 8)
    weights = torch.randn(3, 8)
    leaf = x.clone().requires_grad_()
    derivative = torch.autograd.grad((function(leaf) * weights).sum(), leaf)[0]
    _, slope = slope_of(lambda h: function(h) * weights, x)
    assert float((slope - derivative).abs().max()) > 1e-3


def test_an_attention_is_linear_in_its_values() -> None:
    """Nothing passes through queries and keys."""
    torch.manual_seed(0)
    attention = without_bias(Attention(8, heads=2, dim_head=4, cross_attention_dim=6))
    x, text = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    y, slope = slope_of(lambda t: attention(x, encoder_hidden_states=t), text)
    assert torch.allclose(y, attention(x, encoder_hidden_states=text), atol=1e-6)
    assert float((text * slope).sum()) == pytest.approx(float(y.sum()), rel=1e-4)
    leaf = x.clone().requires_grad_()
    with RelevanceRules():
        y = attention(leaf, encoder_hidden_states=text)
    assert not y.requires_grad


def test_a_modulation_keeps_its_derivative() -> None:
    """A vector that is spread over tokens is no gate of them: the stream is not halved."""
    x, scale = torch.randn(2, 5, 8), torch.randn(2, 1, 8, requires_grad=True)
    _, slope = slope_of(lambda h: h * (1 + scale), x)
    assert torch.allclose(slope, (1 + scale).expand_as(x))


def test_nothing_changes_without_a_graph_or_after_exit() -> None:
    """The rules hold for graphs that are made inside alone."""
    x = torch.randn(3, 8)
    with RelevanceRules():
        assert not F.silu(x).requires_grad
    leaf = x.clone().requires_grad_()
    derivative = torch.autograd.grad(F.silu(leaf).sum(), leaf)[0]
    sigmoid = torch.sigmoid(x)
    assert torch.allclose(derivative, sigmoid * (1 + x * (1 - sigmoid)), atol=1e-6)
