"""A run of two noises without any model, whose effects grow with the noise."""

from pathlib import Path

import numpy as np

from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun
from schemas.caption import Caption
from schemas.component import Part
from schemas.intervention import Intervention
from schemas.numerics import Numerics
from schemas.plan import TracePlan
from tests.made_up.runs import commit_all, make_components, make_run, score_row

NOISES = (3.0, 0.5)
CAPTIONS = 12
COMPONENTS = 2
INTERVENTIONS = (Intervention.RESTORE, Intervention.OTHER_DRAW)


def make_swept_run(path: Path | str) -> TraceRun:
    """Return a run of two attributes, whose total effect is a tenth of the noise.

    Restoring the first component brings all of it back, the second one half of it, another draw
    nothing.
    """
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=tuple(
            Caption(caption=f"{attribute} {n}", subject=attribute, attribute=attribute)
            for attribute in ("object", "style")
            for n in range(CAPTIONS)
        ),
        parts=(Part.TEXT_ENCODER,),
        measures=("target",),
        interventions=INTERVENTIONS,
        numerics=Numerics(noise_sigmas=NOISES),
    )
    run = make_run(path, plan, components=COMPONENTS)
    generator = np.random.default_rng(0)

    def scores(row: IdentifiedUnit) -> list[dict]:
        total = 0.1 * row.unit.noise_sigmas
        return [
            score_row(
                row,
                component.name,
                intervention=intervention.value,
                measure="target",
                clean=0.6,
                corrupted=0.6 - total,
                patched=0.6
                - total
                + (total / (1 + number) if intervention is Intervention.RESTORE else 0.0)
                + 0.001 * generator.normal(),
            )
            for number, component in enumerate(make_components(COMPONENTS))
            for intervention in INTERVENTIONS
        ]

    commit_all(run, scores)
    return run
