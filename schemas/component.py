"""Components of a text-to-image model: the places where causal mediation analysis intervenes."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """The half of the model that a component belongs to."""

    DENOISER = "denoiser"
    """The network that predicts the noise: a UNet or a transformer."""
    TEXT_ENCODER = "text-encoder"

    @classmethod
    def _missing_(cls, value: object) -> "Part | None":
        """Return the denoiser for `unet`, its name in plans of Stable Diffusion."""
        return cls.DENOISER if value == "unet" else None


class Kind(StrEnum):
    """The computation that a component does."""

    SELF_ATTENTION = "self_attn"
    SELF_ATTENTION_TEXT = "self_attn_text"
    """The text's attention to itself in a transformer, before it meets the image."""
    CROSS_ATTENTION = "cross_attn"
    JOINT_ATTENTION = "joint_attn"
    """The image's side of one attention over image and text."""
    JOINT_ATTENTION_TEXT = "joint_attn_text"
    """The text's side of one attention over image and text."""
    FEED_FORWARD = "feed_forward"
    FEED_FORWARD_TEXT = "feed_forward_text"
    """The feed-forward of the text's stream."""
    RESNET = "resnet"
    MLP = "mlp"
    BLOCK = "block"
    """A whole block of a UNet, with the skip connections that it hands on."""
    LAYER = "layer"
    """A whole layer of a text encoder."""
    HEAD = "head"
    """One head of an attention, before the output projection mixes the heads."""
    STREAM_IMAGE = "stream_image"
    """The image's tokens after a block of a transformer."""
    STREAM_TEXT = "stream_text"
    """The text's tokens after a block of a transformer."""
    TEXT_PROJECTION = "text_projection"
    """The text rows as they enter a transformer."""
    POOLED_PROJECTION = "pooled_projection"
    """The pooled embedding of the caption as it enters a transformer."""
    MODULATION = "modulation"
    """The vector by which every block of a transformer scales and shifts its tokens."""


PAPER_KINDS = (
    Kind.SELF_ATTENTION,
    Kind.SELF_ATTENTION_TEXT,
    Kind.CROSS_ATTENTION,
    Kind.JOINT_ATTENTION,
    Kind.JOINT_ATTENTION_TEXT,
    Kind.FEED_FORWARD,
    Kind.FEED_FORWARD_TEXT,
    Kind.RESNET,
    Kind.MLP,
)
"""The kinds that Basu et al. trace, which are traced when no kind is named; on a joint transformer
those of its text stream too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A place of the model whose activation can be patched."""

    name: str
    """Stable name, e.g. `unet.mid_block.resnets.0` or `text_encoder.layers.0.self_attn`."""
    part: Part
    kind: Kind
    order: int
    """Position in the network's order of execution within its part, from 0."""
    layer: int
    """Text encoder, transformer: the layer's number. UNet: the number of its block in order down,
    mid, up."""
    num_parameters: int
    has_contribution: bool = False
    """Whether it returns its input plus what it adds, so that its state and its contribution
    differ; an attention returns what it adds alone."""
    is_cut_point: bool = False
    """Whether its state holds everything upstream: the network's input reaches the image only
    through it (`engine.model.cut_points`)."""
    is_dead: bool = False
    """The image does not depend on it, by construction: a negative control."""
    in_single_stream: bool = False
    """It is the image or the text in one sequence of both: no text is given to it that a swap could
    replace."""


TEXT_READERS = (Kind.CROSS_ATTENTION, Kind.JOINT_ATTENTION)
"""Kinds of component of the denoiser that read the text."""
TEXT_ENTRY_KINDS = (*TEXT_READERS, Kind.POOLED_PROJECTION)
"""Kinds of component of the denoiser through which alone its image depends on the text."""
TEXT_ENTRIES = "text_entries"
"""Name of all components of these kinds, patched together: a bound of what any of them can do. It
is traced besides the components and ranked with none."""


def names_by_part(components: Iterable[Component]) -> dict[Part, list[str]]:
    """Return the names of each part's components, in order."""
    names: dict[Part, list[str]] = {part: [] for part in Part}
    for component in components:
        names[component.part].append(component.name)
    return names
