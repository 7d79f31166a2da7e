"""Does the paper replicate on emoji-sd? python -m bench.replication trace|report.

`trace` traces the probe set of emoji-sd into four runs under runs/: `replication-unet` (every
component, restored, corrupted and with both controls), `replication-contributions` (what each
resnet of the UNet adds, restored), `replication-text` (every layer at the last subject token,
restored, corrupted and from an unrelated caption) and `replication-tokens` (layer x token). They
continue where they were cut short. `report` writes docs/findings.md and its figures from their
scores.
"""

import argparse
from pathlib import Path
from typing import Any

from bench.replication.figures import draw_figures
from bench.replication.page import write_page
from jobs.cluster.connection import Cluster
from jobs.input.captions import pick
from jobs.input.probes import probe_set
from jobs.pool.limits import Limits
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run, trace_run

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"
STEPS = 10
"""Denoising steps: half the model's own, so that two cores trace more captions."""
CONTROLLED = ["restore", "corrupt", "other-seed", "other-caption"]
"""Sufficiency, necessity, and both controls."""
RUNS: dict[str, dict[str, Any]] = {
    "replication-text": {
        "each": 72,
        "parts": ["text-encoder"],
        "interventions": ["restore", "corrupt", "other-caption"],
    },
    "replication-unet": {"each": 36, "parts": ["denoiser"], "interventions": CONTROLLED},
    "replication-contributions": {
        "each": 36,
        "parts": ["denoiser"],
        "kinds": ["resnet"],
        "patches": ["contribution"],
    },
    "replication-tokens": {
        "each": 8,
        "parts": ["text-encoder"],
        "tokens": ["words", "pads"],
    },
}
"""Fields of each run's plan, and how many captions of an attribute it has."""


def trace(folder: Path, actors: int) -> None:
    """Trace the remaining units of the runs."""
    for name, fields in RUNS.items():
        captions = pick(probe_set("emoji-sd"), each=fields["each"])
        plan = {k: v for k, v in fields.items() if k != "each"}
        plan |= {"captions": captions, "numerics": {"steps": STEPS}}
        run = prepare_run(folder / name, check_plan(make_plan(plan)))
        end = trace_run(
            run,
            cluster=Cluster(actors=actors),
            rows=32,
            limits=Limits(),
            retry_failed=False,
            on_progress=lambda _: None,
            note=print,
        )
        print(f"{run.location}: {end.done} of {end.total} units, {end.failed} failed", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", choices=["trace", "report"])
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    if options.what == "trace":
        trace(options.folder, options.actors)
    else:
        write_page(options.folder, PAGE, draw_figures(options.folder, PAGE.parent / "images"))


if __name__ == "__main__":
    main()
