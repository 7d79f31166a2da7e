"""The control by another corrupted draw is called a null only where its interval holds zero."""

from pathlib import Path

import numpy as np
import pytest

from jobs.query.placebo import placebos
from jobs.query.rank import Choice
from jobs.query.select import opened_views
from jobs.query.words import notes
from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun
from schemas.caption import Caption
from schemas.component import Part
from schemas.intervention import Intervention
from schemas.plan import TracePlan
from tests.made_up.runs import commit_all, make_components, make_run, score_row

CAPTIONS = 12
INTERVENTIONS = (Intervention.RESTORE, Intervention.OTHER_DRAW, Intervention.MATCHED)


def traced(path: Path, *, control: float) -> TraceRun:
    """Return a run of 2 components whose other draws change the score by `control` on average."""
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=tuple(
            Caption(
                caption=f"cat {n}",
                subject="cat",
                attribute="object",
                counterfactual="dog" if n else None,
            )
            for n in range(CAPTIONS)
        ),
        parts=(Part.TEXT_ENCODER,),
        measures=("target",),
        interventions=INTERVENTIONS,
    )
    run = make_run(path, plan, components=2)
    generator = np.random.default_rng(0)
    means = dict(zip(INTERVENTIONS, (0.2, control, 0.0), strict=True))

    def scores(row: IdentifiedUnit) -> list[dict]:
        return [
            score_row(
                row,
                component.name,
                intervention=intervention.value,
                measure="target",
                clean=0.6,
                corrupted=0.2,
                patched=0.2 + mean + 0.02 * generator.normal(),
            )
            for component in make_components(2)
            for intervention, mean in means.items()
        ]

    commit_all(run, scores)
    return run


@pytest.mark.parametrize(
    ("control", "is_null", "says"), [(0.0, True, "is a null"), (-0.1, False, "is not a null here")]
)
def test_another_draw_is_a_null_where_its_interval_holds_zero(
    tmp_path: Path, control: float, is_null: bool, says: str
) -> None:
    run = traced(tmp_path / "run", control=control)
    with opened_views(run) as views:
        (found,) = placebos(views, Choice(measure="target"))
        others = placebos(views, Choice(measure="target", attribute="style"))
        said = notes(views, Choice(measure="target"))
    assert (found.attribute, found.part, found.is_null) == ("object", "text-encoder", is_null)
    assert found.mean == pytest.approx(control, abs=0.02)
    assert found.low < found.mean < found.high
    assert found.high - found.low < 0.03
    assert says in found.sentence
    assert others == []
    assert found.sentence in said
    assert said[-1].startswith("1 of 12 captions have no counterfactual")
