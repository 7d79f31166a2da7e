"""An edit as a LoRA of its exact rank, in the two namings that image tools load.

`pytorch_lora_weights.safetensors` is what diffusers loads with `load_lora_weights(folder)`;
`kohya_lora.safetensors` what kohya's scripts, A1111 and ComfyUI load. Both add
    dW = (alpha / r) B A
to each matrix, B `up` and A `down`.

With a UNet diffusers reads the second file too. With a transformer ComfyUI alone does: its
`lora_transformer_...` names, of SD3 and FLUX.1. Of FLUX.2, Z-Image and Qwen-Image ComfyUI reads the
first file's names, and there is no second. No tool takes half an edit: neither file is written
where diffusers has no loader for one of the edited parts. It has none for T5 and Gemma, nor for any
part of PixArt.

Shapes: E outputs, D inputs, R rank (suffixes `_ED`, `_ER`, `_RD`, `_R`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from engine.editing.delta import NO_METADATA
from engine.model.components import Networks
from engine.model.model import Diffusion
from engine.model.parts import lora_parts

PEFT_FILE = "pytorch_lora_weights.safetensors"
"""The file name that diffusers looks for in a folder."""
KOHYA_FILE = "kohya_lora.safetensors"
COMFYUI_TRANSFORMERS = frozenset({"StableDiffusion3Pipeline", "FluxPipeline"})
"""Pipelines of transformers whose LoRA names ComfyUI maps to its own, `comfy/lora.py`."""
COMFYUI_READS_PEFT = COMFYUI_TRANSFORMERS | {
    "Flux2KleinPipeline",
    "Flux2Pipeline",
    "QwenImagePipeline",
    "ZImagePipeline",
}
"""Pipelines whose transformer's part of diffusers' file ComfyUI reads, by the same function."""
ROUNDING = 2.0**-24
"""Largest relative error of rounding to float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """A change as a product, B A, float64."""

    up_ER: torch.Tensor
    down_RD: torch.Tensor

    @property
    def rank(self) -> int:
        """R."""
        return len(self.down_RD)


def factorize(change_ED: torch.Tensor, original_ED: torch.Tensor) -> Factors:
    """Return B = U sqrt(S) and A = sqrt(S) V^T of a change dW_ED, by an SVD in float64.

    The rank is the least whose remainder is not above the float32 rounding of W0, in Frobenius
    norm: |dW - B A| <= 2^-24 |W0|, as much as the weights themselves may have been rounded by. So
    an exact dW of rank 3 gives rank 3, and one rounded to float32 beforehand mostly does.
    """
    u_EK, s_K, v_KD = _svd(change_ED.cpu().double())
    # Norm of what is left when the first r are kept, for r = 0 .. K.
    left = torch.cat([s_K.square().flip(0).cumsum(0).flip(0).sqrt(), s_K.new_zeros(1)])
    allowed = ROUNDING * original_ED.detach().cpu().double().norm()
    rank = int((left > allowed).sum())
    root_R = s_K[:rank].sqrt()
    return Factors(up_ER=u_EK[:, :rank] * root_R, down_RD=root_R[:, None] * v_KD[:rank])


def _svd(matrix_ED: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the thin SVD; of a wide or tall matrix by way of its square QR factor, 3x faster."""
    if matrix_ED.shape[0] > matrix_ED.shape[1]:
        v_DK, s_K, u_KE = _svd(matrix_ED.T)
        return u_KE.T, s_K, v_DK.T
    q_DE, r_EE = torch.linalg.qr(matrix_ED.T)
    u_EE, s_E, v_EE = torch.linalg.svd(r_EE.T)
    return u_EE, s_E, v_EE @ q_DE.T


def loadable_parts(model: Networks) -> frozenset[str]:
    """Return the parts of a pipeline into which diffusers can load a LoRA; of text encoders, CLIP
    alone."""
    return lora_parts(model.family.pipeline) - {
        e.name for e in model.encoders if not _is_clip(e.module)
    }


def _is_clip(encoder: torch.nn.Module) -> bool:
    return type(encoder).__name__.startswith("CLIPText")


def without_loader(model: Networks, names: Iterable[str]) -> list[str]:
    """Return the parts of weights, by public name, into which diffusers can load no LoRA."""
    parts = dict.fromkeys(name.partition(".")[0] for name in names)
    return [part for part in parts if part not in loadable_parts(model)]


def peft_tools(model: Networks) -> tuple[str, ...]:
    """Return the tools that read the first file of an edit, of a transformer the transformer's
    part."""
    return ("diffusers", *(("ComfyUI",) if model.family.pipeline in COMFYUI_READS_PEFT else ()))


def kohya_tools(model: Networks) -> tuple[str, ...]:
    """Return the tools that read the second file of an edit; none: it is not written."""
    if model.family.denoiser == "unet":
        return ("diffusers", "kohya's scripts", "A1111", "ComfyUI")
    # ComfyUI has no SANA, and diffusers none of these names in a transformer.
    return ("ComfyUI",) if model.family.pipeline in COMFYUI_TRANSFORMERS else ()


def write_lora(
    folder: Path,
    factors: Mapping[str, Factors],
    *,
    model: Diffusion,
    about: Mapping[str, str] = NO_METADATA,
) -> None:
    """Write the LoRA files of the changes of matrices by public name, float32, scale 1.

    `about` is added to the files' metadata. Matrices whose change has rank 0 are left out.
    ValueError: diffusers has no loader for a part.
    """
    lacking = without_loader(model, factors)
    if lacking:
        raise ValueError(f"diffusers loads no LoRA into {lacking[0]} of {model.name}")
    changed = {name.removesuffix(".weight"): f for name, f in factors.items() if f.rank}
    peft: dict[str, torch.Tensor] = {}
    kohya: dict[str, torch.Tensor] = {}
    # One alpha for all: diffusers 0.42 loses the alphas of single matrices where they differ,
    # which those equal to unequal ranks would (lora_conversion_utils._get_alpha_name).
    alpha = max((f.rank for f in changed.values()), default=0)
    for name, f in changed.items():
        up, down = _peft_names(name)
        peft[up], peft[down] = _single(f.up_ER), _single(f.down_RD)
        stem = _kohya_name(name, encoders=len(model.encoders))
        kohya[f"{stem}.lora_up.weight"] = _single(f.up_ER * (f.rank / alpha))
        kohya[f"{stem}.lora_down.weight"] = _single(f.down_RD)
        kohya[f"{stem}.alpha"] = torch.tensor(float(alpha))
    metadata = {**about, "format": "pt"}
    save_file(peft, folder / PEFT_FILE, metadata=metadata)
    if kohya_tools(model):
        save_file(kohya, folder / KOHYA_FILE, metadata=metadata)


def _peft_names(name: str) -> tuple[str, str]:
    """Return the names of B and A in diffusers' file.

    Text encoders: `lora_linear_layer`, as diffusers 0.42 cannot tell what a file of `lora_A` of
    `fc2` alone is (state_dict_utils.convert_state_dict_to_diffusers).
    """
    part, _, parameter = _old_name(name).partition(".")
    if not part.startswith("text_encoder"):
        return f"{part}.{parameter}.lora_B.weight", f"{part}.{parameter}.lora_A.weight"
    stem = f"{part}.{parameter}.lora_linear_layer"
    return f"{stem}.up.weight", f"{stem}.down.weight"


def _kohya_name(name: str, *, encoders: int) -> str:
    part, _, parameter = _old_name(name).partition(".")
    prefix = {
        "unet": "lora_unet",
        "transformer": "lora_transformer",
        "text_encoder": "lora_te1" if encoders > 1 else "lora_te",
        "text_encoder_2": "lora_te2",
    }[part]
    return f"{prefix}_{parameter.replace('.', '_')}"


def _old_name(name: str) -> str:
    """Return the name with the `text_model.` that all tools expect in names of CLIP's parts.

    transformers 5.6 dropped it from CLIPTextModel; diffusers drops it while loading there.
    """
    return name.replace("text_encoder.encoder.", "text_encoder.text_model.encoder.", 1)


def _single(factor: torch.Tensor) -> torch.Tensor:
    return factor.float().contiguous()
