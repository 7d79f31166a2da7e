"""What tracing must leave unchanged: weights and hooks."""

from engine.model.model import Diffusion


def state_of(model: Diffusion) -> tuple[float, int]:
    """Return the sum of all weights' magnitudes and the number of hooks."""
    networks = (model.denoiser, model.text_encoder)
    total = sum(float(p.double().abs().sum()) for n in networks for p in n.parameters())
    hooks = sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for network in networks
        for module in network.modules()
    )
    return total, hooks
