"""Summing an edit's keys on Ray: batches are shared by actors, each with the model open.

A batch does not depend on the worker and the sums are added in the batches' order, so that an edit
is the same with any number of workers, up to rounding, which depends on threads and processor.
"""

# pyright: reportUnknownMemberType=false
# Ray leaves parts of some methods without types.

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from jobs.cluster.connection import Cluster, connected

if TYPE_CHECKING:
    from engine.editing.closed_form import KeyStatistics
    from engine.editing.solve import Batch, Collect
    from engine.model.model import Diffusion


class KeyWorker:
    """Holds a model and sums batches of prompts; a plain class, which Ray wraps as an actor."""

    def __init__(self, model: str, threads: int) -> None:
        """Open the model; ModelUnavailable if it cannot be opened."""
        import torch

        from engine.model.device import is_cpu
        from engine.model.opening import open_model

        if is_cpu():
            torch.set_num_threads(threads)
        self._model = open_model(model)

    def sum(self, batch: "Batch", edited: "Mapping[str, Any]") -> "KeyStatistics":
        """Return the sums of a batch, with the weights `edited` so far."""
        from engine.editing.solve import sum_batches

        return next(sum_batches(self._model, [batch], edited))


def shared(cluster: Cluster) -> "Callable[[Diffusion], AbstractContextManager[Collect]]":
    """Return a function that opens the workers of an edit on `cluster`."""

    @contextmanager
    def opened(model: "Diffusion") -> "Generator[Collect]":
        import ray
        from ray.util import ActorPool

        with connected(cluster) as capacity:
            actor_class: Any = ray.remote(KeyWorker).options(
                num_cpus=1, num_gpus=capacity.gpus_an_actor
            )
            actors = [actor_class.remote(model.name, threads=1) for _ in range(capacity.actors())]

            def collect(
                batches: "Sequence[Batch]", edited: "Mapping[str, Any]"
            ) -> "Iterator[KeyStatistics]":
                weights = ray.put(dict(edited))
                pool: Any = ActorPool(actors)

                def sent(actor: Any, batch: "Batch") -> Any:
                    return actor.sum.remote(batch, weights)

                return pool.map(sent, list(batches))

            yield collect

    return opened
