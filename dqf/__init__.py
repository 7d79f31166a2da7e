"""Find where a text-to-image diffusion model keeps a concept, and edit it out in bulk.

The names below are dqf's public Python API; each is imported when it is first used. ImportError
names both files if a module of yours hides one of dqf's packages. Everything else in `schemas`,
`engine`, `jobs` and `cli` may change between versions.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dqf.packages import refuse_foreign

if TYPE_CHECKING:
    from engine.model.opening import open_model
    from engine.model.scorer import open_scorer
    from jobs.cluster.connection import Cluster
    from jobs.editing.request import EditRequest, run_edit
    from jobs.evaluation.evaluate import EvaluationRequest, evaluate, prepare_evaluation
    from jobs.notebook import Trace, trace, trace_caption
    from jobs.query.results import effects, open_run, query, rank
    from schemas.caption import Caption
    from schemas.component import Kind, Part
    from schemas.concept import Concept
    from schemas.errors import DqfError
    from schemas.intervention import Intervention, TokenRole
    from schemas.numerics import Numerics

__all__ = [
    "Caption",
    "Cluster",
    "Concept",
    "DqfError",
    "EditRequest",
    "EvaluationRequest",
    "Intervention",
    "Kind",
    "Numerics",
    "Part",
    "TokenRole",
    "Trace",
    "effects",
    "evaluate",
    "open_model",
    "open_run",
    "open_scorer",
    "prepare_evaluation",
    "query",
    "rank",
    "run_edit",
    "trace",
    "trace_caption",
]
PLACES = {
    "Caption": "schemas.caption",
    "Cluster": "jobs.cluster.connection",
    "Concept": "schemas.concept",
    "DqfError": "schemas.errors",
    "EditRequest": "jobs.editing.request",
    "EvaluationRequest": "jobs.evaluation.evaluate",
    "Intervention": "schemas.intervention",
    "Kind": "schemas.component",
    "Numerics": "schemas.numerics",
    "Part": "schemas.component",
    "TokenRole": "schemas.intervention",
    "Trace": "jobs.notebook",
    "effects": "jobs.query.results",
    "evaluate": "jobs.evaluation.evaluate",
    "open_model": "engine.model.opening",
    "open_run": "jobs.query.results",
    "open_scorer": "engine.model.scorer",
    "prepare_evaluation": "jobs.evaluation.evaluate",
    "query": "jobs.query.results",
    "rank": "jobs.query.results",
    "run_edit": "jobs.editing.request",
    "trace": "jobs.notebook",
    "trace_caption": "jobs.notebook",
}
"""The module of each public name; a test holds it against the imports for type checkers."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'dqf' has no attribute {name!r}")
    refuse_foreign()
    value = globals()[name] = getattr(importlib.import_module(PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
