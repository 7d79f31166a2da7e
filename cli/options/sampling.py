"""The options of the sampler, also by the names that diffusers has for them."""

import re
from collections.abc import Sequence
from typing import Annotated

from cli.options.panels import SAMPLING, option
from engine.model.registry import BUILT_IN

DIFFUSERS = {
    "num-inference-steps": "steps",
    "guidance-scale": "guidance",
    "torch-dtype": "dtype",
}
"""Options of dqf by the names that diffusers has for them."""
DEMO = BUILT_IN["emoji-sd"]
OWN = "the model's own"


def own_name(name: str) -> str:
    """Return the name of dqf's own for an option's name."""
    return DIFFUSERS.get(name, name)


def as_typed(message: str, words: Sequence[str]) -> str:
    """Return a message that names options as the command line's words do."""
    typed = {word.removeprefix("--").partition("=")[0] for word in words}
    for name, own in DIFFUSERS.items():
        if name in typed:
            message = re.sub(rf"--{own}(?![\w-])", f"--{name}", message)
    return message


StepsOption = Annotated[
    int | None,
    option(
        "Denoising steps, also as --num-inference-steps.",
        panel=SAMPLING,
        default=f"{OWN}, {DEMO.steps} for {DEMO.name}",
        metavar="N",
        min=1,
        max=1000,
    ),
]
GuidanceOption = Annotated[
    float | None,
    option(
        "Scale of classifier-free guidance, also as --guidance-scale.",
        panel=SAMPLING,
        default=f"{OWN}, {DEMO.guidance:g} for {DEMO.name}",
        metavar="SCALE",
        min=1.0,
        max=100.0,
    ),
]
SchedulerOption = Annotated[
    str | None, option("Scheduler: ddim, euler, dpm++ ...", panel=SAMPLING, default=OWN)
]
