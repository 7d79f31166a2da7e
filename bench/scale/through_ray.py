"""The cost of Ray, the pool and the store: a run by two actors, compared with two bare processes.

Both trace the same units of emoji-sd with one thread a process; processes take units in turn. The
clock runs from when both processes have opened their models and traced one unit until the last unit
is done: committed to the run's folder where it goes through Ray, only traced where it does not.

    python -m bench.scale.through_ray [--units 12] [--steps 20] [--repeats 3]
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import jobs.tracing.trace
from bench.scale.together import READY, WaitingWorker, start_s, trace_share
from jobs.cluster.connection import Cluster
from jobs.input.probes import probe_set
from jobs.pool.limits import Limits
from jobs.runs.trace_run import TraceRun
from jobs.tracing.plan import CheckedPlan, check_plan, make_plan


def main() -> None:
    """Print both times and their ratio."""
    options = _options()
    planned = _planned(options)
    print(
        f"{options.units} units of {len(planned.components)} components, "
        f"{planned.plan.numerics.steps} steps, {options.actors} processes of one thread"
    )
    ratios = []
    for _ in range(options.repeats):
        bare_s, ray_s = _bare_s(planned, options), _through_ray_s(planned, options)
        ratios.append(bare_s / ray_s)
        print(f"engine alone {bare_s:7.2f} s   through Ray {ray_s:7.2f} s   {ratios[-1]:.3f}")
    print(f"median of engine alone / through Ray {statistics.median(ratios):.3f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--components", type=int, help="so many of each unit; all if not given")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    return parser.parse_args()


def _planned(options: argparse.Namespace) -> CheckedPlan:
    fields = {
        "captions": probe_set("emoji-sd")[: options.units],
        "parts": ["denoiser"],
        "numerics": {"steps": options.steps},
        "chunk_units": 1,
    }
    planned = check_plan(make_plan(fields))
    if options.components:
        chosen = [component.name for component in planned.components[: options.components]]
        planned = check_plan(make_plan({**fields, "components": chosen}))
    return planned


def _run_in(folder: Path, planned: CheckedPlan, processes: int) -> TraceRun:
    """Return a new run, and make the folder by which its processes wait for each other."""
    (folder / READY).mkdir()
    (folder / "processes").write_text(str(processes))
    return jobs.tracing.trace.prepare_run(folder / "run", planned)


def _through_ray_s(planned: CheckedPlan, options: argparse.Namespace) -> float:
    """Return the seconds of a run as `dqf trace submit` makes it."""
    end_s = 0.0

    def on_progress(_: object) -> None:
        nonlocal end_s
        end_s = time.time()

    with tempfile.TemporaryDirectory() as name:
        run = _run_in(Path(name), planned, options.actors)
        cluster = Cluster(actors=options.actors)
        end = jobs.tracing.trace.trace_run(
            run,
            cluster=cluster,
            rows=options.rows,
            limits=Limits(),
            retry_failed=False,
            on_progress=on_progress,
            note=print,
            worker_class=WaitingWorker,
        )
        if end.failed or end.done < end.total:
            raise SystemExit(f"the run failed: {run.failures()}")
        return end_s - start_s(Path(name))


def _bare_s(planned: CheckedPlan, options: argparse.Namespace) -> float:
    """Return the seconds of the same units in plain processes."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        run = _run_in(Path(name), planned, options.actors)
        next_unit, ends = context.Value("i", 0), context.Queue()
        processes = [
            context.Process(target=trace_share, args=(run, options.rows, next_unit, ends))
            for _ in range(options.actors)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit("a process failed")
        return max(ends.get() for _ in processes) - start_s(Path(name))


if __name__ == "__main__":
    main()
