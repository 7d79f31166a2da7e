"""Language models as text encoders: Qwen and Mistral, which read a caption in a chat template.

A pipeline reads the states of some layers, at the tokens of caption and template alike. A mask
hides the padding, which follows the template, or stands before it where the tokenizer pads so.

Shapes: R rows, L token positions, D text width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from engine.model.families.t5 import t5_dtype
from engine.model.families.transformers import TransformerFamily
from engine.model.hooks import HookPoint, Side, recording
from engine.model.model import TextEncoder
from engine.model.tokens import TemplateTokenizer
from engine.model.weight_files import PartError
from schemas.errors import PlanError, first_line

MARK = "\ue000"
"""Stands for the caption where the text around it is looked for; it means nothing in Unicode."""

Template = Callable[[str], str]
"""Returns a caption with the text that a pipeline puts around it."""


class ChatTokenizer(TemplateTokenizer):
    """A tokenizer that reads captions within a template; a caption stands there as written."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: Template,
        length: int,
        padding_side: str = "right",
        starts_once: bool = False,
    ) -> None:
        """Bound the positions of template and caption together by `length`.

        `starts_once`: the tokenizer adds no special tokens where the template begins with its start
        token, as processors have it. PartError: the template does not say the caption once.
        """
        try:
            before, after = template(MARK).split(MARK)
        except Exception as error:  # a bad template can make a library raise anything
            raise PartError(
                "its tokenizer's chat template does not write a text once: " + first_line(error)
            ) from error
        super().__init__(tokenizer, before=before, after=after, length=length)
        self._template, self.padding_side = template, padding_side
        start = tokenizer.bos_token
        has_start = starts_once and start is not None and before.startswith(start)
        self._options = {"add_special_tokens": False} if has_start else {}

    @property
    def positions_before(self) -> int:
        """Token positions of the template before a caption."""
        return len(self._tokenizer.encode(self._before, **self._options))

    def __call__(self, captions: str | Sequence[str], **options: Any) -> Any:
        """Return the encoding of template and caption, for one caption or for each of several."""
        own = {"padding_side": self.padding_side, **self._options}
        return super().__call__(captions, **{**options, **own})

    def _whole(self, caption: str) -> str:
        """Return template and caption; PlanError if the template changes the caption."""
        whole = self._template(caption)
        if whole not in (self._around(caption), self._around(caption.strip())):
            raise PlanError(
                f"text {caption!r}: the model's chat template changes it, so that its tokens "
                "cannot be found: write it without the template's own signs"
            )
        return whole

    def _around(self, caption: str) -> str:
        return self._before + caption + self._after

    def _blanks(self, caption: str) -> int:
        """Return how many of the caption's first characters are left out."""
        is_whole = self._template(caption) == self._around(caption)
        return 0 if is_whole else super()._blanks(caption)


class LanguageModelFamily(TransformerFamily):
    """Pipelines whose one text encoder is a language model."""

    def text_dtype(self, dtype: torch.dtype, *, part: str) -> torch.dtype:
        """Return float32 in place of float16, whose range language models exceed."""
        return t5_dtype(dtype)

    def run_encoder(self, encoder: TextEncoder, ids_RL: torch.Tensor) -> Any:
        """Return the language model's output, with a mask of padding."""
        return run_language_model(encoder, ids_RL)


def user_message(tokenizer: Any, *, is_thinking: bool) -> Template:
    """Return the template of a user's message to Qwen3, with the beginning of its answer."""

    def template(caption: str) -> str:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": caption}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=is_thinking,
        )

    return template


def text_mask(encoder: TextEncoder, ids_RL: torch.Tensor) -> torch.Tensor | None:
    """Return 1 at each text and 0 at the padding after or before it, as integers; None without
    values, on the meta device."""
    if ids_RL.is_meta:
        return None
    is_text_RL = ids_RL != encoder.tokenizer.pad_token_id
    if encoder.tokenizer.padding_side == "left":
        return (is_text_RL.cumsum(1) > 0).long()
    return (is_text_RL.flip(1).cumsum(1).flip(1) > 0).long()


def run_language_model(encoder: TextEncoder, ids_RL: torch.Tensor) -> Any:
    """Return a language model's output with a mask of padding; of the next words' scores, which
    nothing reads, those after the last position alone are computed."""
    module: Any = encoder.module
    options = {"logits_to_keep": 1} if hasattr(module, "lm_head") else {}
    mask = text_mask(encoder, ids_RL)
    if mask is None:  # transformers asks what a mask hides, but for one that has every pair
        rows, length = ids_RL.shape
        mask = ids_RL.new_ones(rows, 1, length, length, dtype=torch.bool)
    return module(ids_RL, attention_mask=mask, use_cache=False, **options)


def decoder_of(encoder: TextEncoder) -> Any:
    """Return the network that has the language model's layers and their last norm."""
    module: Any = encoder.module
    return module.get_decoder()


def states_before(
    encoder: TextEncoder, layers: Sequence[int], run: Callable[[], object]
) -> list[torch.Tensor]:
    """Return the states_RLD that go into some layers in `run()`, as hooks leave them; the layer
    after the last is the last norm, whose result is returned."""
    decoder = decoder_of(encoder)
    own = len(decoder.layers)
    spots = [
        HookPoint(decoder.layers[n], Side.INPUT) if n < own else HookPoint(decoder.norm)
        for n in layers
    ]
    with recording(spots) as passed:
        run()
    return [passed[spot][0] for spot in spots]
