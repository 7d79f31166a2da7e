"""A small real run: a tiny model traced in this process, with controls, windows and tokens."""

from pathlib import Path

from jobs.query.catalog import write_catalog
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker

CAPTIONS = [
    {"caption": "a red apple", "subject": "apple", "attribute": "object", "target": "apple"},
    {"caption": "a blue dog", "subject": "dog", "attribute": "object", "target": "dog"},
    {"caption": "a green cat", "subject": "green", "attribute": "color", "target": "green"},
    {"caption": "a red house", "subject": "red", "attribute": "color", "target": "red"},
]


def trace_tiny(location: Path, *, model: Path, scorer: Path) -> TraceRun:
    """Return a finished run at `location`: two parts, seeds and windows, two tokens, controls."""
    fields = {
        "model": str(model),
        "scorer": str(scorer),
        "captions": CAPTIONS,
        "seeds": [0, 1],
        "parts": ["denoiser", "text-encoder"],
        "tokens": ["last_subject", "eos"],
        "windows": ["each"],
        "kinds": ["mlp", "self_attn"],
        "interventions": ["restore", "other-seed", "other-caption"],
        "numerics": {"steps": 2},
    }
    run = prepare_run(location, check_plan(make_plan(fields)))
    worker = TraceWorker(run.location, rows=16, threads=1)
    for chunk in range(run.num_chunks):
        worker.run(Task(chunk=chunk))
    write_catalog(run)
    return run
