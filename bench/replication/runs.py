"""The runs of the replication: the plans of one model, and tracing them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.model.components import list_components
from engine.model.opening import open_skeleton
from jobs.cluster.connection import Cluster
from jobs.input.captions import pick
from jobs.input.probes import probe_set
from jobs.pool.limits import Limits
from jobs.runs.trace_run import TraceRun
from jobs.tracing.located_sets import SetsRequest, locate_sets
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.set_plans import planned_sets
from jobs.tracing.trace import prepare_run, trace_run
from schemas.caption import Caption
from schemas.component import TEXT_READERS, Component, Kind, Part
from schemas.intervention import PatchKind, TokenRole
from schemas.plan import TracePlan

PROBE = "emoji-sd"
"""The probe set of both models."""
CAPTIONS = 20
"""Captions of each attribute, which a claim with a control needs (docs/statistics.md)."""
STEPS = 6
"""Denoising steps: fewer than the models' own, so that two cores trace enough captions."""
ROWS = 16
CONTRIBUTION = PatchKind.CONTRIBUTION
RANDOM = 1
"""Random sets of each size."""
RUN_TEXTS = {
    "components": "every component alone: restored, corrupted, and restored from a matched "
    "caption, which has the same latent and another value of the attribute; resnets also by what "
    "they add",
    "paths": "the first self-attentions of all text encoders at several tokens, the text from each "
    "depth of the denoiser on, and the pooled embedding",
    "sets": "the leading components together, on the half of the captions that they were not "
    "ranked on",
    "contributions": "the same of the denoiser by contribution",
}
"""The runs of a model, by name, and what each traces."""
ROLES = (TokenRole.LAST_SUBJECT, TokenRole.EOS, TokenRole.PADS, TokenRole.ALL)
"""The tokens at which the first self-attentions are patched."""
POOLED = "pooled"
"""Set of the pooled embedding as it enters the denoiser."""


def run_folder(folder: Path, model: str, name: str) -> Path:
    """Return the folder of a run."""
    return folder / f"replication-{model}-{name}"


def first_at(role: TokenRole) -> str:
    """Return the name of the set of the first self-attentions at a token."""
    return f"first-{role.value}"


def text_from(depth: int) -> str:
    """Return the name of the set that patches the text from a depth of the denoiser on."""
    return f"text-from-{depth}"


Trace = Callable[[Path, TracePlan], TraceRun]
"""Traces the remaining units of a plan's run at a location."""


def trace_model(
    model: str, folder: Path, *, captions: Sequence[Caption], steps: int, trace: Trace
) -> Iterator[TraceRun]:
    """Yield a model's runs as they are traced; sets follow from the scores of `components`."""
    fields = {"model": model, "captions": captions, "numerics": {"steps": steps}}

    def traced(name: str, plan: TracePlan) -> TraceRun:
        return trace(run_folder(folder, model, name), plan)

    components = traced("components", make_plan({**fields, **COMPONENTS}))
    yield components
    yield traced("paths", make_plan({**fields, **paths_of(model)}))
    yield traced("sets", _sets(components))
    # Where every component adds its whole output, sets by contribution are the same.
    if any(component.has_contribution for component in components.components):
        yield traced("contributions", _sets(components, part=Part.DENOISER, patch=CONTRIBUTION))


def probes(each: int, attributes: Sequence[str] | None = None) -> list[Caption]:
    """Return the first captions of each attribute of the probe set, of all attributes by
    default."""
    picked = pick(probe_set(PROBE), each=each)
    return [c for c in picked if attributes is None or c.attribute in attributes]


def _sets(components: TraceRun, **request: Any) -> TracePlan:
    return planned_sets(locate_sets(components, SetsRequest(random=RANDOM, share=0, **request)))


COMPONENTS: Mapping[str, Any] = {
    "interventions": ["restore", "corrupt", "matched"],
    "patches": ["state", "contribution"],
}


def paths_of(model: str) -> dict[str, Any]:
    """Return the fields of a plan of the ways that the text takes into a model's image."""
    components = [c for c in list_components(open_skeleton(model)) if not c.is_dead]
    pooled = [c.name for c in components if c.kind is Kind.POOLED_PROJECTION]
    firsts = first_attentions(components)
    return {
        "sets": {
            **{first_at(role): [f"{name}@{role}" for name in firsts] for role in ROLES},
            **{text_from(depth): names for depth, names in enumerate(entries_from(components))},
            **({POOLED: pooled} if pooled else {}),
        },
        "interventions": ["restore", "corrupt"],
    }


def first_attentions(components: Sequence[Component]) -> list[str]:
    """Return the first self-attention of each text encoder."""
    firsts: dict[str, str] = {}
    for component in components:
        if component.kind is Kind.SELF_ATTENTION and component.name.startswith("text_encoder"):
            firsts.setdefault(component.name.split(".")[0], component.name)
    return list(firsts.values())


def entries_from(components: Sequence[Component]) -> list[list[str]]:
    """Return for each depth of a denoiser what to patch so that the text is patched from there on.

    A joint transformer's text flows through its blocks: that is its projection, and its stream
    after each block. A UNet's is given to every cross-attention: those from there on.
    """
    stream = [c.name for c in components if c.kind in (Kind.TEXT_PROJECTION, Kind.STREAM_TEXT)]
    if stream:
        return [[name] for name in stream]
    readers = [c.name for c in components if c.kind in TEXT_READERS]
    return [readers[depth:] for depth in range(len(readers))]


def trace_on_ray(location: Path, plan: TracePlan, *, actors: int) -> TraceRun:
    """Return the run of a plan, traced by a local Ray; one that is there is continued."""
    run = prepare_run(location, check_plan(plan))
    end = trace_run(
        run,
        cluster=Cluster(actors=actors),
        rows=ROWS,
        limits=Limits(),
        retry_failed=False,
        on_progress=lambda _: None,
        note=print,
    )
    print(f"{run.location}: {end.done} of {end.total} units, {end.failed} failed", flush=True)
    return run
