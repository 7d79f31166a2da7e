"""A screened run and the exact one that it chooses, without any model: effects that are known."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun, create_run
from schemas.component import Component, Kind, Part
from schemas.plan import TracePlan
from schemas.screen import Screen
from tests.made_up.runs import MANIFEST, cats, commit_all, score_row

STEPS, CORRUPTED, CLEAN = 4, 0.2, 0.8
WINDOWS = tuple((step, step + 1) for step in range(STEPS))
BLOCKS = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0")
NAMES = tuple(
    f"unet.{block}.attentions.0.transformer_blocks.0.{attn}"
    for block in BLOCKS
    for attn in ("attn1", "attn2")
)
"""Names that emoji-sd has too, as a plan is checked against its model."""


def component(name: str) -> Component:
    """Return a made-up attention."""
    return Component(
        name=name, part=Part.DENOISER, kind=Kind.SELF_ATTENTION, order=NAMES.index(name), layer=0,
        num_parameters=1,
    )  # fmt: skip


def mean_effect(name: str, start: int) -> float:
    """Return a state's true mean effect: the first components have the largest ones."""
    return 0.3 / (1 + NAMES.index(name)) * (1 if start == 0 else 0.3)


def numbers(*of: object) -> tuple[float, float]:
    """Return two independent standard normal numbers that follow from the arguments."""
    digest = sha256(repr(of).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return float(rng.standard_normal()), float(rng.standard_normal())


def effects(seed: int, caption: str, name: str, start: int) -> tuple[float, float]:
    """Return a caption's exact and screened effect of a state, which are correlated at 0.9."""
    own, noise = numbers(seed, caption, name, start)
    exact = mean_effect(name, start) + 0.1 * own
    return exact, 0.5 * exact + 0.05 * float(np.sqrt(1 / 0.81 - 1)) * noise


def make_screened_run(
    path: Path,
    *,
    captions: int = 24,
    attributes: tuple[str, ...] = ("object",),
    seed: int = 0,
    screen: Screen | None = Screen.RELP,
    is_whole: bool = True,
) -> TraceRun:
    """Return a screened run of every component at every single step."""
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=cats(captions, attributes),
        parts=(Part.DENOISER,),
        windows=("each",),
        measures=("target",),
        screen=screen,
        chunk_units=64,
    )
    run = create_run(path, plan, MANIFEST, tuple(map(component, NAMES)), steps=STEPS)
    if is_whole:
        commit_all(run, rows_of(seed, place=1))
    return run


def make_exact_run(path: Path, plan: TracePlan, *, seed: int = 0) -> TraceRun:
    """Return the finished run of an exact plan."""
    components = tuple(map(component, plan.components or ()))
    run = create_run(path, plan, MANIFEST, components, steps=STEPS)
    commit_all(run, rows_of(seed, place=0))
    return run


def rows_of(seed: int, *, place: int) -> Callable[[IdentifiedUnit], Iterator[dict]]:
    """Return the function that makes a unit's rows, exact (place 0) or screened (1)."""

    def scores(row: IdentifiedUnit) -> Iterator[dict]:
        unit = row.unit
        for name in unit.components:
            for window in unit.windows:
                if unit.has(name, window=window, token="all"):
                    effect = effects(seed, unit.caption.caption, name, window[0])[place]
                    yield score_row(
                        row, name, token="all", position=None, token_text=None,
                        step_start=window[0], step_stop=window[1], measure="target",
                        estimate=("exact", "relp")[place], clean=CLEAN, corrupted=CORRUPTED,
                        patched=CORRUPTED + effect,
                    )  # fmt: skip

    return scores
