"""An attack on an edit without any model."""

from pathlib import Path

from jobs.runs.attack_run import AttackRun
from jobs.runs.opening import create_as
from jobs.runs.run import Task
from schemas.attack import Attack, AttackPlan, Side
from schemas.concept import Concept, ConceptKind
from schemas.numerics import Numerics
from tests.made_up.runs import MANIFEST


def make_attack(folder: Path) -> AttackRun:
    """Return an attack on a cat, of which a prompt brings half of the images back."""
    plan = AttackPlan(
        edit="d",
        model="emoji-sd",
        scorer="builtin:emoji-sd",
        names={ConceptKind.OBJECT: ("cat", "dog")},
        attacked=(Concept(concept="cat"),),
        attacks=(Attack.PROMPT,),
        seeds=4,
        numerics=Numerics(steps=2),
    )
    run = create_as(AttackRun, folder, plan, MANIFEST)
    run.complete()
    (unit,) = run.unit_rows(Task(chunk=0))
    rows = [
        {
            "unit_id": unit.unit_id, "concept": "cat", "kind": "object", "side": side.value,
            "attack": attack.value, "shown": shown, "images": 4, "success": shown / 4, "low": 0.0,
            "high": 1.0, "prompt": "", "steps": 1, "seconds": 0.1,
        }
        for side, attack, shown in (
            (Side.UNEDITED, Attack.PLAIN, 4), (Side.EDITED, Attack.PLAIN, 0),
            (Side.UNEDITED, Attack.PROMPT, 3), (Side.EDITED, Attack.PROMPT, 2),
        )
    ]  # fmt: skip
    run.commit(Task(chunk=0), rows, [], units=1)
    return run
