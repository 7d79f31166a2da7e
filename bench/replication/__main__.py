"""Does the paper replicate on the embedded models? python -m bench.replication trace|report.

`trace` traces captions of the probe set that both models share, into runs of each model under
runs/ (`bench.replication.runs` says which). They continue where they were cut short. `report`
writes docs/findings.md and its figures from their scores.
"""

import argparse
import time
from functools import partial
from pathlib import Path

from bench.replication.figures import draw_figures
from bench.replication.page import opened_evidence, write_page
from bench.replication.runs import CAPTIONS, PROBE, STEPS, probes, trace_model, trace_on_ray
from engine.model.registry import EMBEDDED
from jobs.input.probes import probe_set
from jobs.tracing.located_sets import LEAST_CAPTIONS

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", choices=["trace", "report"])
    parser.add_argument("--model", choices=EMBEDDED, help="trace this model alone")
    attributes = sorted({caption.attribute for caption in probe_set(PROBE)})
    parser.add_argument(
        "--attribute", action="append", choices=attributes, help="trace this alone; repeatable"
    )
    parser.add_argument("--captions", type=int, default=CAPTIONS, help="of each attribute")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    if options.captions < 2 * LEAST_CAPTIONS:
        parser.error(f"sets need {LEAST_CAPTIONS} captions in each half: --captions is too few")
    if options.what == "trace":
        _trace(options)
        return
    with opened_evidence(options.folder) as evidence:
        write_page(evidence, PAGE, draw_figures(evidence, PAGE.parent / "images"))


def _trace(options: argparse.Namespace) -> None:
    started = time.monotonic()
    for model in [options.model] if options.model else EMBEDDED:
        runs = trace_model(
            model,
            options.folder,
            captions=probes(options.captions, options.attribute),
            steps=options.steps,
            trace=partial(trace_on_ray, actors=options.actors),
        )
        for run in runs:
            print(f"{run.name} after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
