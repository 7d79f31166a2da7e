"""Metrics for Prometheus, which Ray's agent on every node serves with the prefix `ray_`.

The driver counts units, each worker the work of its device; docs/cluster.md lists all metrics.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.runs.run import TaskDone

RUN = "TraceRun"
"""The tag that every metric has: the run's name."""


class DriverMetrics:
    """The metrics of a run's driver."""

    def __init__(self, run: str, *, left: int) -> None:
        """Count for the run of that name, of which `left` units are to be done."""
        from ray.util.metrics import Counter, Gauge, Histogram

        self._units = Counter(
            "dqf_units_total", "Units that were tried, by status.", tag_keys=(RUN, "Status")
        )
        self._left = Gauge("dqf_units_left", "Units that are left to try.", tag_keys=(RUN,))
        self._seconds = Histogram(
            "dqf_unit_seconds",
            "Seconds of a unit, the mean over its chunk.",
            boundaries=[0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000],
            tag_keys=(RUN,),
        )
        for metric in (self._units, self._left, self._seconds):
            metric.set_default_tags({RUN: run})
        self._num_left = left
        self._left.set(left)

    def task_done(self, done: "TaskDone") -> None:
        """Count a committed task."""
        for status, count in (("done", done.units - done.failed), ("failed", done.failed)):
            if count:
                self._units.inc(count, tags={"Status": status})
        self._num_left -= done.units
        self._left.set(self._num_left)
        if done.units and done.seconds:
            self._seconds.observe(done.seconds / done.units)


class WorkerMetrics:
    """The metrics of a worker."""

    def __init__(self, run: str) -> None:
        """Count for the run of that name."""
        from ray.util.metrics import Counter, Gauge

        self._rows = Counter(
            "dqf_denoiser_rows_total", "Rows that the denoiser has evaluated.", tag_keys=(RUN,)
        )
        self._memory = Gauge(
            "dqf_gpu_memory_bytes", "Most GPU memory that a worker has held.", tag_keys=(RUN, "Gpu")
        )
        for metric in (self._rows, self._memory):
            metric.set_default_tags({RUN: run})

    def rows(self, count: int) -> None:
        """Count rows of one evaluation of the denoiser."""
        self._rows.inc(count)

    def memory(self, device: str, held_bytes: int) -> None:
        """Note the most memory that was held on a GPU."""
        self._memory.set(held_bytes, tags={"Gpu": device})
