"""Short names of components, for people: `up 1 resnet 0` for `unet.up_blocks.1.resnets.0`."""

import re
from collections import Counter
from collections.abc import Sequence

from schemas.component import TEXT_ENTRIES

SHORT_KINDS = {"attn1": "self-attn", "attn2": "cross-attn", "ff": "feed-forward"}
UNET = re.compile(
    r"unet\.(?P<side>down|mid|up)_blocks?(\.(?P<block>\d+))?"
    r"(\.(?P<what>resnets|attentions|downsamplers|upsamplers)\.(?P<n>\d+)"
    r"(\.transformer_blocks\.(?P<t>\d+)\.(?P<inner>attn1|attn2|ff))?)?(\.heads\.(?P<head>\d+))?"
)
TRANSFORMER = re.compile(
    r"transformer\.(?P<single>single_)?transformer_blocks\.(?P<block>\d+)\.(?P<inner>\w+)"
    r"(?P<text>\.text)?(\.heads\.(?P<head>\d+))?"
)
TEXT = re.compile(
    r"text_encoder(_(?P<encoder>\d+))?\.layers\.(?P<layer>\d+)"
    r"(\.(?P<inner>self_attn|mlp))?(\.heads\.(?P<head>\d+))?"
)


def short_name(name: str) -> str:
    """Return a component's name as people read it; names of unknown form stay as they are."""
    first, joined, last = name.partition("..")
    if joined:  # consecutive components that are restored together
        return f"{short_name(first)} to {short_name(last)}"
    if name == TEXT_ENTRIES:
        return "all text entries"
    if found := UNET.fullmatch(name):
        return _unet_name(found)
    if found := TRANSFORMER.fullmatch(name):
        where = f"{'single ' if found['single'] else ''}block {found['block']}"
        inner = found["inner"].replace("_", " ")
        return f"{where} {inner}{' text' if found['text'] else ''}{_head(found)}"
    if found := TEXT.fullmatch(name):
        inner = {"self_attn": " self-attn", "mlp": " MLP", None: ""}[found["inner"]]
        return f"{_encoder(found)}layer {found['layer']}{inner}{_head(found)}"
    return name


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the short name of each component, the full one where two would be alike."""
    short = {name: short_name(name) for name in names}
    times = Counter(short.values())
    return {name: text if times[text] == 1 else name for name, text in short.items()}


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
