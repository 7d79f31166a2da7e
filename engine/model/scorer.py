"""CLIPScore by an open_clip model: the only file that imports open_clip.

Shapes: R images, T texts, D embedding width, C H W image.
"""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from huggingface_hub.constants import HF_HUB_OFFLINE
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize

from engine.files import is_folder
from engine.model.hub import node_lock
from engine.model.registry import scorer_source
from schemas.errors import ModelUnavailable, first_line


class Scorer:
    """An open_clip model that scores images against texts."""

    def __init__(self, spec: str, *, device: torch.device | str = "cpu") -> None:
        """Open the model of `spec`: `builtin:emoji-sd`, a folder or `ARCHITECTURE:PRETRAINED`.

        ModelUnavailable: there is no such scorer or it cannot be fetched.
        """
        self._device = torch.device(device)
        try:
            name, pretrained = _resolve(spec)
            _fetch(name, pretrained)
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, device=self._device
            )
            self._tokenizer = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise ModelUnavailable(
                f"scorer {spec!r} cannot be opened: {first_line(error)}"
            ) from error
        self._model: Any = model.eval().requires_grad_(False)
        self._resize, self._rest = _tensor_transform(preprocess)
        self._text_D: dict[str, torch.Tensor] = {}

    def score(self, images_RCHW: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Return cosine similarities score_RT, float64, of images in [0, 1] and texts.

        CLIPScore (Hessel et al. 2021) without its factor 2.5 and without clipping at zero, which
        would hide the sign of effects.
        """
        return (self.embed_images(images_RCHW) @ self.embed_texts(texts).T).double().cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the texts' embeddings, _TD, of length 1."""
        return torch.stack([self._text_embedding(text) for text in texts])

    @torch.inference_mode()
    def embed_images(self, images_RCHW: torch.Tensor, batch: int = 64) -> torch.Tensor:
        """Return the embeddings of images in [0, 1], _RD, of length 1."""
        parts = []
        for part_RCHW in images_RCHW.float().split(batch):
            # Bicubic overshoot is clipped, as in the 8-bit images of the model's own preprocess.
            resized_RCHW = self._resize(part_RCHW.to(self._device)).clamp(0, 1)
            parts.append(self._model.encode_image(self._rest(resized_RCHW), normalize=True))
        return torch.cat(parts)

    def _text_embedding(self, text: str) -> torch.Tensor:
        if text not in self._text_D:
            ids_1L = self._tokenizer([text]).to(self._device)
            self._text_D[text] = self._model.encode_text(ids_1L, normalize=True)[0]
        return self._text_D[text]


def open_scorer(spec: str, device: torch.device | str = "cpu") -> Scorer:
    """Return the scorer of `spec`; ModelUnavailable if there is none."""
    return Scorer(spec, device=device)


def check_scorer(spec: str) -> None:
    """Raise ModelUnavailable if `spec` names no scorer, without opening one."""
    try:
        _resolve(spec)
    except ValueError as error:
        raise ModelUnavailable(f"unknown scorer {spec!r}: {error}") from error


def _resolve(spec: str) -> tuple[str, str | None]:
    """Return open_clip's model name and pretrained tag for a scorer spec."""
    source = scorer_source(spec)
    if is_folder(source):
        return f"local-dir:{source}", None
    architecture, _, pretrained = source.partition(":")
    if (architecture, pretrained) not in open_clip.list_pretrained():
        raise ValueError(
            "give builtin:emoji-sd, an open_clip folder, or ARCHITECTURE:PRETRAINED "
            "such as ViT-B-16:openai"
        )
    return architecture, pretrained


def _fetch(architecture: str, pretrained: str | None) -> None:
    """Put a pretrained model's file into the hub's cache, one process of a node at a time."""
    if pretrained is None or HF_HUB_OFFLINE:
        return
    with node_lock(f"{architecture}:{pretrained}"):
        open_clip.download_pretrained(open_clip.get_pretrained_cfg(architecture, pretrained))


def _tensor_transform(preprocess: Any) -> tuple[Compose, Compose]:
    """Return the resizing and the remaining steps of a preprocess, for tensors in [0, 1]."""
    steps = preprocess.transforms
    resizing = [step for step in steps if isinstance(step, Resize)]
    rest = [step for step in steps if isinstance(step, (CenterCrop, Normalize))]
    return Compose(resizing), Compose(rest)
