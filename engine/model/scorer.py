"""CLIPScore by an open_clip model: the only file that imports open_clip.

Shapes: R images, T texts, D embedding width, C H W image.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub.constants import HF_HUB_OFFLINE
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize

from engine.files import is_folder
from engine.model.device import device_of
from engine.model.finite import refuse_not_finite
from engine.model.hub import node_lock
from engine.model.parts import check_finite
from engine.model.registry import as_name, scorer_source
from engine.model.weight_files import PartError, read_headers, read_json
from schemas.errors import ModelUnavailable, PlanError, first_line

TO_TENSOR = ("MaybeConvertMode", "MaybeToTensor", "ToTensor", "function")
"""Steps of open_clip's preparation that dqf skips, as its images are RGB tensors in [0, 1]
already."""


class Scorer:
    """An open_clip model that scores images against texts."""

    def __init__(self, spec: str | Path, *, device: torch.device | str = "cpu") -> None:
        """Open the model of `spec`: `builtin:emoji-sd`, a folder or `ARCHITECTURE:PRETRAINED`.

        ModelUnavailable: there is no such scorer or it cannot be fetched.
        """
        spec = self.spec = as_name(spec, "scorer")
        check_scorer(spec)
        self._device = device_of(device)
        try:
            name, pretrained = _resolve(spec)
            _fetch(name, pretrained)
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=pretrained,
                device=self._device,
                force_quick_gelu=quick_gelu(name, pretrained),
            )
            self._tokenizer = open_clip.get_tokenizer(name)
            self._resize, self._rest = _tensor_transform(preprocess)
            check_finite("its network", model)
        except (OSError, RuntimeError, ValueError, KeyError, PartError) as error:
            raise ModelUnavailable(
                f"scorer {spec!r} cannot be opened: {first_line(error)}"
            ) from error
        self._model: Any = model.eval().requires_grad_(False)
        self._text_D: dict[str, torch.Tensor] = {}

    def score(self, images_RCHW: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Return cosine similarities score_RT, float64, of images in [0, 1] and texts.

        CLIPScore (Hessel et al. 2021) without its factor 2.5 and without clipping at zero, which
        would hide the sign of effects.
        """
        return (self.embed_images(images_RCHW) @ self.embed_texts(texts).T).cpu().double()

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the texts' embeddings, _TD, of length 1."""
        return torch.stack([self._text_embedding(text) for text in texts])

    def embed_images(self, images_RCHW: torch.Tensor, batch: int = 64) -> torch.Tensor:
        """Return the embeddings of images in [0, 1], _RD, of length 1; differentiable where the
        images are."""
        parts = []
        for part_RCHW in images_RCHW.float().split(batch):
            # Bicubic overshoot is clipped, as in the 8-bit images of the model's own preprocess.
            resized_RCHW = self._resize(part_RCHW.to(self._device)).clamp(0, 1)
            parts.append(self._model.encode_image(self._rest(resized_RCHW), normalize=True))
        embedding_RD = torch.cat(parts)
        runs = [f"image {row + 1}" for row in range(len(embedding_RD))]
        refuse_not_finite(embedding_RD, runs=runs, network="the scorer", dtype=torch.float32)
        return embedding_RD

    def _text_embedding(self, text: str) -> torch.Tensor:
        if text not in self._text_D:
            # A tensor of inference mode could take part in no later gradient.
            with torch.inference_mode(mode=False), torch.no_grad():
                ids_1L = self._tokenizer([text]).to(self._device)
                embedding_1D = self._model.encode_text(ids_1L, normalize=True)
            refuse_not_finite(
                embedding_1D, runs=[f"text {text!r}"], network="the scorer", dtype=torch.float32
            )
            self._text_D[text] = embedding_1D[0]
        return self._text_D[text]


def open_scorer(spec: str | Path, device: torch.device | str = "cpu") -> Scorer:
    """Return the scorer of `spec`; ModelUnavailable if there is none."""
    return Scorer(spec, device=device)


def check_scorer(spec: str) -> None:
    """Raise ModelUnavailable if `spec` names no scorer, or a folder with incomplete weights.

    Of a folder, the config and the header of its weights are read.
    """
    try:
        _resolve(spec)
    except ValueError as error:
        raise ModelUnavailable(f"unknown scorer {spec!r}: {error}") from error
    folder = Path(scorer_source(spec))
    if is_folder(folder):
        try:
            _check_folder(folder)
        except PartError as error:
            raise ModelUnavailable(f"scorer {spec!r} cannot be opened: {error}") from error


def check_texts(spec: str, texts: Sequence[str]) -> None:
    """Raise PlanError if a scorer would read the beginning of a text alone."""
    distinct = list(dict.fromkeys(texts))
    counts, limit = count_scorer_tokens(spec, distinct)
    for text, count in zip(distinct, counts, strict=True):
        if count > limit:
            raise PlanError(
                f"the scorer reads {limit} tokens, and {text!r} has {count}: shorten it"
            )


def count_scorer_tokens(spec: str, texts: Sequence[str]) -> tuple[list[int], int]:
    """Return how many tokens each text has to a scorer, and how many the scorer reads."""
    name, _ = _resolve(spec)
    tokenizer: Any = open_clip.get_tokenizer(name)
    limit = int(tokenizer.context_length)
    if not texts:
        return [], limit
    if isinstance(tokenizer, open_clip.tokenizer.SimpleTokenizer):
        return [len(tokenizer.encode(text)) + 2 for text in texts], limit  # it starts and ends one
    cleaned = [tokenizer.clean_fn(text) for text in texts]
    return [len(ids) for ids in tokenizer.tokenizer(cleaned, verbose=False).input_ids], limit


def _check_folder(folder: Path) -> None:
    """Raise PartError if open_clip would leave a part of a folder's network at random values."""
    config = read_json(folder / "open_clip_config.json").get("model_cfg")
    if not isinstance(config, dict):
        raise PartError("open_clip_config.json has no model_cfg")
    text = config.get("text_cfg")
    if not isinstance(text, dict) or "hf_model_name" in text or "tokenizer_kwargs" in text:
        raise PartError(
            "open_clip_config.json has a text_cfg that names a model of another repository or "
            "options of its tokenizer, either of which could run code"
        )
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise PartError(
            f"{folder.name} has {len(files) or 'no'} .safetensors files: dqf reads a scorer's one"
        )
    stored = read_headers(files)
    for name, shape in _folder_shapes(folder).items():
        if name not in stored:
            raise PartError(f"{files[0].name} is incomplete: {name} is missing")
        if stored[name].numel() != shape.numel():
            raise PartError(f"{files[0].name} has {name} of another shape than the config says")


def _folder_shapes(folder: Path) -> dict[str, torch.Size]:
    """Return the shape of every tensor that a folder's config asks for, without its weights."""
    logging.disable(logging.WARNING)  # open_clip's, that there are no weights
    try:
        with torch.device("meta"):
            model = open_clip.create_model(
                f"local-dir:{folder}", load_weights=False, pretrained_text=False, device="meta"
            )
    except Exception as error:  # a bad config can make a library raise anything
        raise PartError(f"open_clip_config.json is not a network: {first_line(error)}") from error
    finally:
        logging.disable(logging.NOTSET)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def quick_gelu(architecture: str, pretrained: str | None) -> bool:
    """Return whether pretrained weights were trained with GELU's quick approximation.

    open_clip warns and uses exact GELU even where its own table of weights says otherwise, as for
    OpenAI's weights.
    """
    if pretrained is None:
        return False
    return bool(open_clip.get_pretrained_cfg(architecture, pretrained).get("quick_gelu", False))


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
    """Fetch a pretrained model's file into the hub's cache; on a node one process at a time."""
    if pretrained is None or HF_HUB_OFFLINE:
        return
    with node_lock(f"{architecture}:{pretrained}"):
        open_clip.download_pretrained(open_clip.get_pretrained_cfg(architecture, pretrained))


def _tensor_transform(preprocess: Any) -> tuple[Compose, Compose]:
    """Return the resizing and the remaining steps of a preprocess, for tensors in [0, 1]."""
    steps = preprocess.transforms
    resizing = [step for step in steps if isinstance(step, Resize)]
    rest = [step for step in steps if isinstance(step, (CenterCrop, Normalize))]
    for step in steps:
        if step not in resizing + rest and type(step).__name__ not in TO_TENSOR:
            raise ValueError(f"it prepares images by {type(step).__name__}, which dqf does not do")
    return Compose(resizing), Compose(rest)
