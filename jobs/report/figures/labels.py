"""Short names of components and their places in the drawn network."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.component import Component, Kind, Part

KIND_NAMES = {
    Kind.RESNET: "resnet",
    Kind.SELF_ATTENTION: "self-attention",
    Kind.JOINT_ATTENTION: "joint attention",
    Kind.CROSS_ATTENTION: "cross-attention",
    Kind.FEED_FORWARD: "feed-forward",
    Kind.MLP: "MLP",
    Kind.HEAD: "head",
    Kind.BLOCK: "block",
    Kind.LAYER: "layer",
}
"""Kinds in the order in which the network drawing stacks them."""
LETTERS = {
    Kind.RESNET: "R",
    Kind.SELF_ATTENTION: "S",
    Kind.JOINT_ATTENTION: "J",
    Kind.CROSS_ATTENTION: "C",
    Kind.FEED_FORWARD: "F",
    Kind.MLP: "M",
    Kind.HEAD: "h",
    Kind.BLOCK: "B",
    Kind.LAYER: "L",
}
# A head comes before its attention, a block or layer after all that it holds.
LANES = (
    Kind.HEAD, Kind.RESNET, Kind.SELF_ATTENTION, Kind.JOINT_ATTENTION, Kind.CROSS_ATTENTION,
    Kind.FEED_FORWARD, Kind.MLP, Kind.BLOCK, Kind.LAYER,
)  # fmt: skip
SHORT_KINDS = {"attn1": "self-attn", "attn2": "cross-attn", "ff": "feed-forward"}
UNET = re.compile(
    r"unet\.(?P<side>down|mid|up)_blocks?(\.(?P<block>\d+))?"
    r"(\.(?P<what>resnets|attentions|downsamplers|upsamplers)\.(?P<n>\d+)"
    r"(\.transformer_blocks\.(?P<t>\d+)\.(?P<inner>attn1|attn2|ff))?)?(\.heads\.(?P<head>\d+))?"
)
TEXT = re.compile(
    r"text_encoder(_(?P<encoder>\d+))?\.layers\.(?P<layer>\d+)"
    r"(\.(?P<inner>self_attn|mlp))?(\.heads\.(?P<head>\d+))?"
)
GAP = 0.5
"""Between blocks of the drawn network, in cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a component is drawn; x and y count cells from the top left."""

    label: str
    """Short name, such as `up 1 cross-attn 0`; the full one if two would be alike."""
    letter: str
    """What the cell shows of the component's kind."""
    block: str
    """The name over its block or layer."""
    x: float
    y: float


def short_name(name: str) -> str:
    """Return a component's name as figures show it; names of unknown form stay as they are."""
    first, joined, last = name.partition("..")
    if joined:  # consecutive components that are restored together
        return f"{short_name(first)} to {short_name(last)}"
    if found := UNET.fullmatch(name):
        return _unet_name(found)
    if found := TEXT.fullmatch(name):
        inner = {"self_attn": " self-attn", "mlp": " MLP", None: ""}[found["inner"]]
        return f"{_encoder(found)}layer {found['layer']}{inner}{_head(found)}"
    return name


def _unet_name(found: re.Match[str]) -> str:
    where = f"{found['side']} {found['block'] or ''}".strip()
    if found["what"] is None:
        return f"{where} block"
    if found["inner"]:
        inner = SHORT_KINDS[found["inner"]]
        # Stable Diffusion 1 and 2 have one transformer block in each attention, SDXL up to ten.
        number = found["n"] if found["t"] == "0" else f"{found['n']}.{found['t']}"
    else:
        inner = {"attentions": "joint-attn", "resnets": "resnet"}.get(found["what"], found["what"])
        number = found["n"]
    return f"{where} {inner} {number}{_head(found)}"


def _head(found: re.Match[str]) -> str:
    return f" head {found['head']}" if found["head"] else ""


def _encoder(found: re.Match[str]) -> str:
    return f"encoder {found['encoder']} " if found["encoder"] else ""


def _block(component: Component) -> str:
    name = component.name.partition("..")[0]
    if found := UNET.fullmatch(name):
        return f"{found['side']} {found['block'] or ''}".strip()
    if found := TEXT.fullmatch(name):
        return f"{found['encoder'] or ''}:{found['layer']}".removeprefix(":")
    return str(component.layer)


def places(components: Sequence[Component]) -> dict[str, Place]:
    """Return where each component is drawn, by its name.

    Each part has columns in the network's order. A column ends where the next component's kind
    does not come after the last one's. The UNet's blocks descend to the middle and rise again.
    """
    labels = [short_name(component.name) for component in components]
    found: dict[str, Place] = {}
    for part in Part:
        own = sorted((c for c in components if c.part is part), key=lambda c: c.order)
        for component, (x, y) in zip(own, _cells(own), strict=True):
            label = short_name(component.name)
            found[component.name] = Place(
                label=label if labels.count(label) == 1 else component.name,
                letter=LETTERS[component.kind],
                block=_block(component),
                x=x,
                y=y,
            )
    return found


def _cells(components: Sequence[Component]) -> list[tuple[float, float]]:
    lanes = [kind for kind in LANES if kind in {c.kind for c in components}]
    last_layer = max((c.layer for c in components), default=0)
    cells: list[tuple[float, float]] = []
    x, previous = -1.0, None
    for component in components:
        lane = lanes.index(component.kind)
        is_block = previous is not None and _block(previous) != _block(component)
        if previous is None or is_block or lane <= lanes.index(previous.kind):
            x += 1 + (GAP if is_block else 0)
        is_unet = component.part is Part.DENOISER
        depth = min(component.layer, last_layer - component.layer) if is_unet else 0
        cells.append((x, depth * (len(lanes) + 1) + lane))
        previous = component
    return cells
