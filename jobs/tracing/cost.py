"""The cost of a plan before it runs: units, patched runs, row evaluations, bytes, hours."""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import io
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from operator import itemgetter
from typing import Any, cast

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.model.opening import open_model, open_skeleton, open_tokenizers, weight_bytes
from engine.model.tokens import Span, find_subjects
from engine.tracing.interventions import reference_runs
from engine.tracing.screening import screen_evaluations
from jobs.tracing.plan import CheckedPlan
from schemas.caption import Caption
from schemas.component import Part, names_by_part
from schemas.errors import PlanError
from schemas.intervention import allows
from schemas.plan import TracePlan
from schemas.tables import SCORES
from schemas.unit import Unit, plan_units


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A plan's size."""

    units: int
    patched_runs: int
    row_evaluations: float
    """Evaluations of the denoiser for one row at one step, with the half of the negative prompt
    where the model is guided by one.

    Rows of source runs are not counted: a batch has few. For the text encoder this is an upper
    bound: equal conditionings are sampled once. Of a screen the rows of sources are counted, a
    step that is evaluated again counts once, and a backward pass twice.
    """
    scores: int
    bytes: int
    """Size of the Parquet files, estimated by writing one unit of random scores."""
    text_weight_bytes: int
    """Memory of the text encoders' weights, in the dtype of the run."""
    denoiser_weight_bytes: int
    """Memory of the denoiser's and the VAE's. A GPU that does not hold both has them in turn; the
    rows of a batch need memory besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTime:
    """Time that one device needs for a plan, from a short calibration of the denoiser alone."""

    device: str
    rows: int
    """The fastest batch size of the device."""
    row_seconds: float
    hours: float


def plan_cost(planned: CheckedPlan) -> Cost:
    """Return the size of a plan; only the tokenizers are opened."""
    plan = planned.plan
    costs = _UnitCosts(planned=planned, located=_located(plan))
    names = names_by_part(planned.components)
    units = plan_units(plan, names=names, steps=planned.steps, sets=planned.sets)
    captions, *repeats, slabs = units.sizes
    # Seeds, draws and noises change no cost, and there may be millions.
    one_each = [
        costs.of(units.at(n, 0, 0, 0, m)) for n, m in product(range(captions), range(slabs))
    ]
    repeated, first_unit_runs = prod(repeats), next((runs for runs, _ in one_each if runs), 0)
    runs = repeated * sum(runs for runs, _ in one_each)
    evaluations = repeated * sum(evaluations for _, evaluations in one_each)
    scores = runs * len(plan.measures)
    text, denoiser = _phase_bytes(plan)
    return Cost(
        units=len(units),
        patched_runs=runs,
        row_evaluations=evaluations,
        scores=scores,
        bytes=round(scores * _bytes_a_score(planned, first_unit_runs * len(plan.measures))),
        text_weight_bytes=text,
        denoiser_weight_bytes=denoiser,
    )


def device_time(planned: CheckedPlan, cost: Cost) -> DeviceTime:
    """Return the time of a plan on this machine's device; the model is opened and its denoiser
    timed."""
    from engine.model.calibration import calibrate

    refuse_too_large(planned.plan)
    numerics = planned.plan.numerics
    measured = calibrate(open_model(planned.plan.model, dtype=numerics.dtype), numerics)
    return DeviceTime(
        device=measured.device,
        rows=measured.rows,
        row_seconds=measured.row_seconds,
        hours=cost.row_evaluations * measured.row_seconds / 3600,
    )


def refuse_too_large(plan: TracePlan, *, offload: bool | None = None) -> None:
    """Raise PlanError if this machine's device does not hold a plan's weights: those of either
    phase, or of both at once on a CPU and without `offload`."""
    text, denoiser = _phase_bytes(plan)
    phase, needed = "text encoders and denoiser", text + denoiser
    if torch.cuda.is_available():
        device, memory = "GPU", torch.cuda.mem_get_info()[1]
        if offload is not False:
            phase, needed = max(("text encoders", text), ("denoiser", denoiser), key=itemgetter(1))
    else:
        device, memory = "machine", psutil.virtual_memory().total
    if needed > memory:
        raise PlanError(
            f"the weights of the {phase} take {needed / 1e9:.1f} GB and this {device} has "
            f"{memory / 1e9:.1f} GB: give --dtype bfloat16, or trace on a cluster by --address"
        )


def _phase_bytes(plan: TracePlan) -> tuple[int, int]:
    """Return the bytes of the weights of the text encoders, and of the denoiser and the VAE."""
    weights = weight_bytes(plan.model, dtype=plan.numerics.dtype)
    text = sum(weights[encoder.name] for encoder in open_skeleton(plan.model).encoders)
    return text, sum(weights.values()) - text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Located:
    """Where a text encoder reads the subjects."""

    spans: Mapping[Caption, Span]
    length: int
    """Token positions of a caption."""

    def groups(self, unit: Unit) -> int:
        """Return the groups of positions at which a unit patches each component."""
        span = self.spans[unit.caption]
        return sum(len(span.positions(role, self.length)) for role in unit.tokens)


def _located(plan: TracePlan) -> dict[str, _Located]:
    """Return where each text encoder reads the subjects, by its name."""
    located: dict[str, _Located] = {}
    for name, tokenizer in open_tokenizers(plan.model).items():
        ids_NT, spans = find_subjects(tokenizer, plan.captions, plan.numerics.occurrence)
        by_caption = dict(zip(plan.captions, spans, strict=True))
        located[name] = _Located(spans=by_caption, length=ids_NT.shape[1])
    return located


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnitCosts:
    """The costs of a plan's units; the part that no caption changes is computed once."""

    planned: CheckedPlan
    located: Mapping[str, _Located]
    _changes: dict[tuple[tuple[str, ...], bool], Mapping[str, int]] = field(default_factory=dict)

    def of(self, unit: Unit) -> tuple[int, float]:
        """Return the numbers of patched runs and row evaluations of a unit."""
        planned, numerics = self.planned, self.planned.plan.numerics
        opened = self._opened(unit)
        runs = sum(count for _, count in opened)
        if planned.plan.screen:
            return runs, screen_evaluations(
                unit,
                numerics,
                steps=planned.steps,
                is_guided=planned.is_guided,
                num_measures=len(planned.plan.measures),
            )
        sets = [
            component_set
            for component_set, what, kind in product(unit.sets, unit.interventions, unit.patches)
            if component_set.allows(what, kind, unit.caption)
        ]
        runs += len(sets)
        if unit.part is Part.TEXT_ENCODER:
            return runs, (2 + runs) * planned.steps
        references = len(reference_runs(unit, numerics)) * planned.steps
        # A row's unconditional half is known at the step where it forks.
        saved = 0.5 if planned.is_guided and numerics.cfg_patch == "cond" else 0.0
        of_components = sum(count * (planned.steps - start - saved) for start, count in opened)
        of_sets = sum(planned.steps - each.window[0] - saved for each in sets)
        return runs, references + of_components + of_sets

    def _opened(self, unit: Unit) -> list[tuple[int, int]]:
        """Return the steps from which a unit patches components, and the patched runs of each."""
        if unit.states is not None:  # a token role of a state is one patched run
            named = [name.partition("@")[::2] for name in unit.states]
            is_text = unit.part is Part.TEXT_ENCODER
            return [
                (
                    0 if is_text else int(where.partition(":")[0]),
                    sum(self._changes_of(unit, (component,)).values()),
                )
                for component, where in named
            ]
        changes = self._changes_of(unit, unit.components)
        if unit.part is Part.TEXT_ENCODER:
            groups = [count * self.located[name].groups(unit) for name, count in changes.items()]
            return [(0, sum(groups))]
        return [(start, sum(changes.values())) for start, _ in unit.windows]

    def _changes_of(self, unit: Unit, components: tuple[str, ...]) -> Mapping[str, int]:
        """Return how many changes of some components a unit makes in each network, for a window or
        a position."""
        key = (components, unit.caption.counterfactual is None)
        if key not in self._changes:
            by_name = {component.name: component for component in self.planned.components}
            changes = Counter[str]()
            for name in components:
                changes[name.split(".")[0]] += sum(
                    allows(intervention, patch_kind, by_name[name], unit.caption)
                    for intervention in unit.interventions
                    for patch_kind in unit.patches
                )
            self._changes[key] = changes
        return self._changes[key]


def _bytes_a_score(planned: CheckedPlan, scores: int) -> float:
    """Return the bytes per score in the part of one chunk."""
    rng = random.Random(0)
    count = max(1, scores) * planned.plan.chunk_units
    numbers = [[rng.random() for _ in range(count)] for _ in range(3)]
    names = [each.name for each in (*planned.components, *planned.sets)]
    columns: dict[str, pa.Array[Any]] = {
        each.name: pa.array([_example(each, names, n) for n in range(count)], each.type)
        for each in cast("Iterable[pa.Field[Any]]", SCORES)
        if each.type != pa.float64()
    }
    floats = dict(zip(("clean", "corrupted", "patched"), map(pa.array, numbers), strict=True))
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pydict({**columns, **floats}), file)
    return file.tell() / count


def _example(field: "pa.Field[Any]", names: list[str], n: int) -> object:
    if field.name == "component":
        return names[n % len(names)]
    return n % 8 if pa.types.is_integer(field.type) else "0123456789abcdef0123456789abcdef"
