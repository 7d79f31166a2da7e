"""A pipeline's networks, each opened from its own folder: complete, of the right shapes, finite.

The files are compared with the config by the loaders' own rules, which rename old names and know
tied weights.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import SchedulerMixin
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from engine.files import is_file, is_folder
from engine.model.weight_files import (
    LFS,
    PartError,
    chosen_variant,
    read_json,
    refuse_pointer,
    stored_weights,
)
from schemas.errors import first_line
from schemas.printable import shown

ADAPTER = "adapter_config.json"
"""The file that makes transformers read the weights of another model, which it names."""
MOST_LAYERS = 1000
"""Layers of a network, or of one of its blocks: published networks have up to 100."""
MOST: Mapping[str, int] = {
    "num_train_timesteps": 1_000_000,
    "pos_embed_max_size": 1024,
    "sample_size": 4096,
    "axes_lens": 65_536,
}
"""Largest values of other settings of which a class makes a table when it is built."""
ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
"""Settings of a config that select attention code of its author's machine."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return a network's config; PartError if it is missing, not JSON or of quantized weights."""
    config: dict[str, Any] = read_json(folder / "config.json")
    _check_counts(f"{folder.name}/config.json", config)
    if config.get("quantization_config") is not None:
        raise PartError(
            f"{folder.name} is quantized (quantization_config in its config.json): "
            "dqf opens float32, float16 and bfloat16 weights"
        )
    return {name: value for name, value in config.items() if name not in ATTENTION}


def _check_counts(name: str, config: Mapping[str, Any]) -> None:
    """Raise PartError if a config asks for so much that building from it would not end."""
    for setting, value in config.items():
        largest = max(_integers(value), default=0)
        most = MOST.get(setting, MOST_LAYERS if "layer" in setting else largest)
        if largest > most:
            raise PartError(f"{name} has {setting} = {shown(value)}: dqf reads at most {most:,}")


def _integers(value: object) -> Iterator[int]:
    """Yield the integers of a setting, a number or a list, which may hold lists."""
    if isinstance(value, list):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, int):
        yield value


def skeleton(kind: Any, config: Mapping[str, Any]) -> nn.Module:
    """Return the network that a config describes, on the meta device: shapes without weights."""
    with torch.device("meta"):
        if issubclass(kind, PreTrainedModel):
            return kind(_text_config(kind, config)).eval()
        return kind.from_config(dict(config)).eval()


def part_skeleton(folder: Path, kind: type) -> nn.Module:
    """Return the skeleton of a part's folder, which several callers share and none changes.

    PartError: the part's config does not fit the network's class.
    """
    config = read_config(folder)
    try:
        return _skeleton_of(kind, json.dumps(config, sort_keys=True))
    except Exception as error:  # a bad config can make a library raise anything
        raise PartError(
            f"{folder.name}/config.json describes no {kind.__name__}: {first_line(error)}"
        ) from error


@lru_cache(maxsize=32)
def _skeleton_of(kind: type, config: str) -> nn.Module:
    """Return the skeleton of a config as JSON: opening a model asks for each of its parts thrice,
    and building one takes up to seconds."""
    return skeleton(kind, json.loads(config))


def check_weights(folder: Path, network: nn.Module, *, variant: str | None = None) -> str | None:
    """Return the variant that is read of the weights of a skeleton's part, `variant` where there is
    one; only headers are read.

    PartError: a tensor is missing, of another shape or of integers, a file cannot be read, or
    weights of another model are named.
    """
    if not is_folder(folder):
        raise PartError(f"there is no folder {folder.name}")
    if isinstance(network, PreTrainedModel) and is_file(folder / ADAPTER):
        raise PartError(f"{folder.name} has {ADAPTER}: merge the adapter into the weights")
    stem = _stem(type(network))
    names = [file.name for file in folder.iterdir()]
    read = chosen_variant(folder.name, names, stem, wanted=variant)
    stored = stored_weights(folder, stem, read)
    # A loader would cast integers to weights; positions and counters need not be read.
    floats = {name: tensor for name, tensor in stored.items() if tensor.is_floating_point()}
    with quiet_loaders():
        missing, mismatched = _compared(network, floats)
    if missing:
        raise PartError(_missing(folder.name, missing, stored))
    if mismatched:
        name, got, wanted = sorted(mismatched)[0]
        count = "a tensor" if len(mismatched) == 1 else f"{len(mismatched)} tensors"
        raise PartError(
            f"{folder.name} has {count} of another shape than its config says: "
            f"{name} is {_size(got)}, not {_size(wanted)}"
        )
    return read


def load_part(folder: Path, kind: Any, variant: str | None, *, dtype: torch.dtype) -> nn.Module:
    """Return a part's network with its weights, on the CPU; PartError if it fails.

    Each tensor of the mapped files is read into the dtype in which it is used, one after another:
    the network is never held twice.
    """
    options: dict[str, Any] = {
        "variant": variant,
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    try:
        with quiet_loaders():
            if issubclass(kind, PreTrainedModel):
                config = _text_config(kind, read_config(folder))
                opened: Any = kind.from_pretrained(folder, config=config, dtype=dtype, **options)
            else:
                opened = kind.from_pretrained(
                    folder, torch_dtype=dtype, low_cpu_mem_usage=True, **options
                )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise PartError(f"{folder.name}: {first_line(error)}") from error
    network, info = opened
    missing = _learned(network, info["missing_keys"])
    if missing:
        raise PartError(_missing(folder.name, missing, {}))
    return network


def check_finite(part: str, network: nn.Module) -> None:
    """Raise PartError if a weight is not a finite number in the type that it is used in."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise PartError(
                f"{part} has {count} values in {name} that are not finite in {dtype}: "
                + ("give --dtype bfloat16" if dtype == "float16" else "its file is damaged")
            )


def _compared(
    network: Any, stored: Mapping[str, torch.Tensor]
) -> tuple[list[str], list[tuple[str, tuple[int, ...], tuple[int, ...]]]]:
    """Return the missing names, and the names of another shape with both shapes."""
    if isinstance(network, PreTrainedModel):
        opened: Any = type(network).from_pretrained(
            None,
            config=network.config,
            state_dict={name: torch.empty(()).expand(t.shape) for name, t in stored.items()},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        info = opened[1]
        mismatched = [
            (name, tuple(got), tuple(want)) for name, got, want in info["mismatched_keys"]
        ]
        return _learned(network, info["missing_keys"]), mismatched
    renamed, wanted = dict(stored), network.state_dict()
    network._fix_state_dict_keys_on_load(renamed)
    return _learned(network, set(wanted) - set(renamed)), [
        (name, tuple(renamed[name].shape), tuple(tensor.shape))
        for name, tensor in wanted.items()
        if name in renamed and renamed[name].shape != tensor.shape
    ]


def _learned(network: nn.Module, names: "set[str] | list[str]") -> list[str]:
    """Return the names of learned tensors, without the positions that a network computes itself.

    Of tied weights only the first: the others follow from it.
    """
    tied = {name for name, _ in network.named_parameters(remove_duplicate=False)} - {
        name for name, _ in network.named_parameters()
    }
    held = {name: t for name, t in network.state_dict().items() if name not in tied}
    names = set(names) - tied
    return sorted(name for name in names if name not in held or held[name].is_floating_point())


def _missing(part: str, names: list[str], stored: Mapping[str, torch.Tensor]) -> str:
    for name, tensor in stored.items():
        if not tensor.is_floating_point() and name.endswith(tuple(names)):
            dtype = str(tensor.dtype).removeprefix("torch.")
            return f"{part} has {name} as {dtype}: weights are floating-point numbers"
    message = f"{part} is incomplete: {len(names)} tensors are missing, {names[0]} the first"
    if any(".base_layer." in name or ".lora_" in name for name in stored):
        return f"{message}; it holds an unfused LoRA: save it again after diffusers' fuse_lora()"
    return message


def _text_config(kind: Any, config: Mapping[str, Any]) -> Any:
    inner = config.get(kind.config_class.base_config_key)  # of a whole CLIP's
    return kind.config_class.from_dict(dict(inner if isinstance(inner, Mapping) else config))


def _stem(kind: type) -> str:
    return "model" if issubclass(kind, PreTrainedModel) else "diffusion_pytorch_model"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


@contextmanager
def quiet_loaders() -> Iterator[None]:
    """Silence the loaders' reports; the checks here say the same in one sentence."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def part_class(index: Mapping[str, Any], part: str) -> type:
    """Return the class that `model_index.json` names for a part; PartError if it is another.

    A class of a module in the model's folder is refused: nothing in the folder is run as code.
    """
    entry = index.get(part)
    if entry in (None, [None, None]):
        raise PartError(f"it has no {part}")
    library, name = entry if isinstance(entry, list) and len(entry) == 2 else (None, entry)
    modules = {"diffusers": diffusers, "transformers": transformers}
    class_named = getattr(modules.get(str(library)), str(name), None)
    if not isinstance(class_named, type):
        raise PartError(
            f"its {part} is {shown(entry)}, which is not a class of diffusers or transformers"
        )
    return class_named


def load_tokenizer(folder: Path, kind: Any, *, in_processor: bool = False) -> Any:
    """Return a part's tokenizer, or the processor that has one; PartError if a file is missing or
    damaged.

    Without these files transformers opens a tokenizer with an empty vocabulary.
    """
    wanted = ProcessorMixin if in_processor else PreTrainedTokenizerBase
    if not issubclass(kind, wanted):
        what = "processor" if in_processor else "tokenizer"
        raise PartError(f"{folder.name} is a {kind.__name__}, which is not a {what}")
    _check_files(folder)
    own = dict(kind.vocab_files_names) if issubclass(kind, PreTrainedTokenizerBase) else {}
    files: dict[str, str] = own or {"vocab_file": "tokenizer.json"}
    whole = files.pop("tokenizer_file", "")
    missing = [file for file in files.values() if not is_file(folder / file)]
    if missing and not is_file(folder / whole):
        raise PartError(f"{folder.name} lacks {' and '.join(missing)}")
    try:
        with quiet_loaders():
            return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a bad file can make a library raise anything
        raise PartError(f"{folder.name} cannot be opened: {first_line(error)}") from error


def load_scheduler(folder: Path, kind: type) -> Any:
    """Return a model's own scheduler; PartError if it cannot be built from its config."""
    if not issubclass(kind, SchedulerMixin):
        raise PartError(f"{folder.name} is a {kind.__name__}, which is not a scheduler")
    config = read_json(folder / "scheduler_config.json")
    _check_counts(f"{folder.name}/scheduler_config.json", config)
    try:
        with quiet_loaders():
            return kind.from_config(config)  # pyright: ignore
    except Exception as error:  # a bad config can make a library raise anything
        raise PartError(f"{folder.name} cannot be opened: {first_line(error)}") from error


def _check_files(folder: Path) -> None:
    """Raise PartError if a folder is missing, or one of its files is irregular or not fetched."""
    if not is_folder(folder):
        raise PartError(f"there is no {folder.name}")
    for file in sorted(folder.iterdir()):
        if not is_file(file) and not is_folder(file):
            raise PartError(f"{folder.name}/{file.name} is not a regular file")
        if is_file(file):
            with file.open("rb") as opened:
                refuse_pointer(file, opened.read(len(LFS)))


def lora_parts(pipeline: str) -> frozenset[str]:
    """Return the parts into which diffusers' loader of a pipeline's class puts a LoRA; none where
    the class has no loader or is not of diffusers."""
    kind = getattr(diffusers, pipeline, None)
    return frozenset(getattr(kind, "_lora_loadable_modules", ()))
