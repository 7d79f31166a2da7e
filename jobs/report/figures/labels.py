"""Places of components in the drawn network."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.component import TEXT_ENTRIES, Component, Kind, Part
from schemas.short_names import TEXT, UNET, short_names

KIND_NAMES = {
    Kind.RESNET: "resnet",
    Kind.SELF_ATTENTION: "self-attention",
    Kind.SELF_ATTENTION_TEXT: "self-attention (text)",
    Kind.JOINT_ATTENTION: "joint attention",
    Kind.JOINT_ATTENTION_TEXT: "joint attention (text)",
    Kind.CROSS_ATTENTION: "cross-attention",
    Kind.FEED_FORWARD: "feed-forward",
    Kind.FEED_FORWARD_TEXT: "feed-forward (text)",
    Kind.MLP: "MLP",
    Kind.HEAD: "head",
    Kind.BLOCK: "block",
    Kind.LAYER: "layer",
    Kind.STREAM_IMAGE: "image stream",
    Kind.STREAM_TEXT: "text stream",
    Kind.TEXT_PROJECTION: "text projection",
    Kind.POOLED_PROJECTION: "pooled projection",
    Kind.MODULATION: "modulation",
}
"""Kinds in the order in which the network drawing stacks them."""
LETTERS = {
    Kind.RESNET: "R",
    Kind.SELF_ATTENTION: "S",
    Kind.SELF_ATTENTION_TEXT: "s",
    Kind.JOINT_ATTENTION: "J",
    Kind.JOINT_ATTENTION_TEXT: "j",
    Kind.CROSS_ATTENTION: "C",
    Kind.FEED_FORWARD: "F",
    Kind.FEED_FORWARD_TEXT: "f",
    Kind.MLP: "M",
    Kind.HEAD: "h",
    Kind.BLOCK: "B",
    Kind.LAYER: "L",
    Kind.STREAM_IMAGE: "I",
    Kind.STREAM_TEXT: "T",
    Kind.TEXT_PROJECTION: "t",
    Kind.POOLED_PROJECTION: "p",
    Kind.MODULATION: "m",
}
# A head comes before its attention, a block or layer after everything that it contains.
LANES = (
    Kind.POOLED_PROJECTION, Kind.MODULATION, Kind.TEXT_PROJECTION,
    Kind.HEAD, Kind.RESNET, Kind.SELF_ATTENTION, Kind.SELF_ATTENTION_TEXT, Kind.JOINT_ATTENTION,
    Kind.JOINT_ATTENTION_TEXT, Kind.CROSS_ATTENTION, Kind.FEED_FORWARD, Kind.FEED_FORWARD_TEXT,
    Kind.MLP, Kind.BLOCK, Kind.STREAM_TEXT, Kind.STREAM_IMAGE, Kind.LAYER,
)  # fmt: skip
GAP = 0.5
"""The space between blocks of the drawn network, in cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a component in the drawing; x and y count cells from the top left."""

    label: str
    """Short name, such as `up 1 cross-attn 0`; the full name if two short ones would be equal."""
    letter: str
    """The letter of the component's kind in its cell."""
    block: str
    """The name above the component's block or layer."""
    x: float
    y: float


def _block(component: Component) -> str:
    name = component.name.partition("..")[0]
    if matched := UNET.fullmatch(name):
        return f"{matched['side']} {matched['block'] or ''}".strip()
    if matched := TEXT.fullmatch(name):
        return f"{matched['encoder'] or ''}:{matched['layer']}".removeprefix(":")
    return str(component.layer)


def places(components: Sequence[Component]) -> dict[str, Place]:
    """Return the place of each component in the drawing, by its name.

    All text entries together, a bound of the others, have no place. Each part has columns in the
    network's order. A column ends where the next component's kind does not follow the last one's in
    order. A UNet's blocks descend to the middle and rise again.
    """
    drawn = [component for component in components if component.name != TEXT_ENTRIES]
    labels = short_names([component.name for component in drawn])
    by_name: dict[str, Place] = {}
    for part in Part:
        of_part = sorted((c for c in drawn if c.part is part), key=lambda c: c.order)
        for component, (x, y) in zip(of_part, _cells(of_part), strict=True):
            by_name[component.name] = Place(
                label=labels[component.name],
                letter=LETTERS[component.kind],
                block=_block(component),
                x=x,
                y=y,
            )
    return by_name


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
        is_unet = component.name.startswith("unet.")
        depth = min(component.layer, last_layer - component.layer) if is_unet else 0
        cells.append((x, depth * (len(lanes) + 1) + lane))
        previous = component
    return cells
