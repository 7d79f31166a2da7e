"""The gradient of a run's score with respect to every activation, at every step of the sampler.

The trajectory of the run is known; from its end to its beginning each step is evaluated again, with
a graph, and what a later step says about the latents and the scheduler's state goes through it. So
the memory is that of one step, however many there are (gradient checkpointing; Chen et al. 2016).

Shapes: R rows, L token positions, D text width, C channels, h x w latent; M slopes of as many
values.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch

from engine.model.conditioning import Conditioning, joined
from engine.model.hooks import HookPoint, differentiated, recording
from engine.model.model import Diffusion
from engine.model.sampling import denoiser_output
from engine.model.schedulers import Rows, evaluated, gathered
from engine.tracing.lockstep import Trajectories
from engine.tracing.relevance import RelevanceRules
from schemas.numerics import Numerics
from schemas.screen import Screen

Slopes = Sequence[torch.Tensor | None]
"""The gradient of one value with respect to each of some tensors; None where it is zero."""


def rules_of(estimate: Screen) -> AbstractContextManager[object]:
    """Return the context in which a graph is made that an estimate's gradients follow."""
    return RelevanceRules() if estimate is Screen.RELP else nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One tensor that passed a hook point, and its slopes."""

    h: torch.Tensor
    """The base run's: one row, or two where the negative prompt's comes first."""
    sources_h: torch.Tensor
    """The source runs', with the negative prompt's first where `h` has two rows."""
    slopes: Sequence[torch.Tensor]
    """Like `h`, for each value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSlopes:
    """The slopes of a run's values at one step."""

    step: int
    activations: dict[HookPoint, list[Activation]]
    text: Sequence[Slopes]
    """For each value, the slopes of the run's text rows and pooled embedding as read at this
    step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A run whose steps are evaluated again from the last to the first."""

    model: Diffusion
    numerics: Numerics
    estimate: Screen
    past: Trajectories
    base: int
    sources: Sequence[int]
    """Runs whose activations are evaluated with it."""
    spots: Sequence[HookPoint]

    @property
    def cells(self) -> int:
        """The cells of a latent, h x w."""
        return self.past.final[0, 0].numel()

    def steps(self, slopes_M: Sequence[torch.Tensor]) -> Iterator[StepSlopes]:
        """Yield the slopes of every step, the last first, from those of the final latent_1Chw."""
        after: list[Slopes] = [[slope] for slope in slopes_M]
        for step in reversed(range(len(self.past.rows) - 1)):
            found, after = self._step(step, after)
            yield found

    def _step(self, step: int, after: Sequence[Slopes]) -> tuple[StepSlopes, list[Slopes]]:
        """Return the slopes of a step, and those of the rows before it, from those after it."""
        sources = self._sources(step)
        with torch.enable_grad(), rules_of(self.estimate):
            rows = gathered([(self.past.rows[step], [self.base])]).mapped(_leaf)
            cond = self.past.cond.take([self.base])
            text = [_leaf(h) for h in (cond.text_RLD, cond.pooled_RP) if h is not None]
            cond = replace(cond, **dict(zip(("text_RLD", "pooled_RP"), text, strict=False)))
            with differentiated(self.spots) as passed:
                outputs = tensors_of(self._stepped(rows, cond, step))
        state = tensors_of(rows)
        nodes = [h for tensors in passed.values() for h in tensors]
        found_M = pulled_back(outputs, [*state, *text, *nodes], after)
        count = len(state), len(state) + len(text)
        found = StepSlopes(
            step=step,
            activations=_activations(passed, sources, [f[count[1] :] for f in found_M]),
            text=[found[count[0] : count[1]] for found in found_M],
        )
        return found, [found[: count[0]] for found in found_M]

    def copies(self, sources: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
        """Return the rows of an activation that are patched, each with the rows of its sources."""
        count, is_both = len(self.sources), self.numerics.cfg_patch == "both"
        guided = {0: 0, 1: count} if is_both else {1: 0}
        rows = {0: 0} if self.past.uncond is None else guided
        places = [self.sources.index(source) for source in sources]
        return [(row, tuple(start + place for place in places)) for row, start in rows.items()]

    def _sources(self, step: int) -> dict[HookPoint, list[torch.Tensor]]:
        """Return the activations of the source runs at a step; empty without any."""
        if not self.sources or not self.spots:
            return {}
        rows, sources = self.past.rows[step], list(self.sources)
        x, cond = rows.model_input(step)[sources], self.past.cond.take(sources)
        if self.past.uncond is not None and self.numerics.cfg_patch == "both":
            x, cond = x.repeat(2, 1, 1, 1), self._with_uncond(cond)
        with recording(self.spots) as passed:
            denoiser_output(self.model, x, evaluated(rows.scheduler)[step], cond, self.numerics)
        return passed

    def _with_uncond(self, cond: Conditioning) -> Conditioning:
        assert self.past.uncond is not None
        return joined([self.past.uncond.take([0] * len(cond)), cond])

    def _stepped(self, rows: Rows, cond: Conditioning, step: int) -> Rows:
        """Return the rows after a step of the base run."""
        x, t = rows.model_input(step), evaluated(rows.scheduler)[step]
        if self.past.uncond is None:
            output = denoiser_output(self.model, x, t, cond, self.numerics)
        else:
            both = denoiser_output(
                self.model, x.repeat(2, 1, 1, 1), t, self._with_uncond(cond), self.numerics
            )
            output = self.model.family.guide(
                *both.chunk(2), guidance=self.numerics.guidance, channels=x.shape[1]
            )
        return rows.stepped(rows.read(output), step)


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy that a gradient can be taken of, where it holds no integers."""
    return tensor.detach().clone().requires_grad_(tensor.is_floating_point())


def activations_of(
    passed: Mapping[HookPoint, Sequence[torch.Tensor]],
    outputs: Sequence[torch.Tensor],
    slopes_M: Sequence[Slopes],
) -> dict[HookPoint, list[Activation]]:
    """Return the collected activations of a batch that holds the source runs too."""
    nodes = [h for tensors in passed.values() for h in tensors]
    return _activations(passed, {}, pulled_back(outputs, nodes, slopes_M))


def _activations(
    passed: Mapping[HookPoint, Sequence[torch.Tensor]],
    sources: Mapping[HookPoint, Sequence[torch.Tensor]],
    found_M: Sequence[Slopes],
) -> dict[HookPoint, list[Activation]]:
    """Return the collected activations; `found_M` has their slopes, in order, for each value."""
    by_node = iter(zip(*found_M, strict=True))
    activations: dict[HookPoint, list[Activation]] = {spot: [] for spot in passed}
    for spot, tensors in passed.items():
        for n, node in enumerate(tensors):
            h = node.detach()
            slopes = [torch.zeros_like(h) if slope is None else slope for slope in next(by_node)]
            sources_h = sources[spot][n] if sources else h
            activations[spot].append(Activation(h=h, sources_h=sources_h, slopes=slopes))
    return activations


def summed_text(sweep: Sweep, slopes_M: Sequence[torch.Tensor]) -> list[list[torch.Tensor | None]]:
    """Return the slopes of a run's text rows and pooled embedding, over all steps together."""
    totals: list[list[torch.Tensor | None]] = []
    for found in sweep.steps(slopes_M):
        totals = totals or [[None] * len(slopes) for slopes in found.text]
        for total, slopes in zip(totals, found.text, strict=True):
            for n, slope in enumerate(slopes):
                before = total[n]
                total[n] = before if slope is None else slope if before is None else before + slope
    return totals


def tensors_of(rows: Rows) -> list[torch.Tensor]:
    """Return the latents and the tensors of the scheduler's state of each row, in order."""
    found: list[torch.Tensor] = []

    def collect(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    rows.mapped(collect)
    return found


def pulled_back(
    outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], slopes_M: Sequence[Slopes]
) -> list[Slopes]:
    """Return the slopes of the inputs for each value, from those of the outputs.

    An output beyond the slopes given has none.
    """
    wanted = [place for place, h in enumerate(inputs) if h.requires_grad]
    found_M: list[Slopes] = []
    for n, slopes in enumerate(slopes_M):
        pairs = [
            (output, slope.to(output))
            for output, slope in zip(outputs, slopes, strict=False)
            if slope is not None and output.requires_grad
        ]
        found: list[torch.Tensor | None] = [None] * len(inputs)
        if pairs:
            heads, weights = zip(*pairs, strict=True)
            gradients = torch.autograd.grad(
                heads,
                [inputs[place] for place in wanted],
                grad_outputs=weights,
                retain_graph=n + 1 < len(slopes_M),
                allow_unused=True,
            )
            for place, gradient in zip(wanted, gradients, strict=True):
                found[place] = gradient
        found_M.append(found)
    return found_M
