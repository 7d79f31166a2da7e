"""Captions as token ids: a byte-level BPE in CLIP's style, trained on the captions themselves.

Shapes: N captions, T tokens (suffix `_NT`).
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from engine.reference.vocabulary import (
    COLOURS,
    OBJECTS,
    OPENINGS,
    STYLES,
    VIEWPOINTS,
    Combo,
    caption,
    combos,
)

LENGTH = 32
"""Tokens of a padded caption, as `model_max_length`."""
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
STYLE_LEFT_OUT = 0.3
"""Share of captions that do not say a style."""


def bytes_to_unicode() -> list[str]:
    """The printable stand-ins of the 256 bytes, in CLIP's order (openai/CLIP, tokenizer)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(len(rest))]


def word_counts() -> Counter[str]:
    """How often each word stands in the captions of all combinations and openings."""
    texts = (caption(c, opening=o) for c in combos() for o in OPENINGS)
    return Counter(word for text in texts for word in text.split())


def split_word(word: str) -> list[str]:
    """A word as single symbols, the last with CLIP's end-of-word suffix."""
    return [*word[:-1], word[-1] + "</w>"]


def merge_pair(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols with every adjacent `pair` joined, left to right."""
    merged: list[str] = []
    for symbol in symbols:
        # A joined symbol is longer than the pair's first half, so it cannot be joined twice.
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def learn_merges(*, whole_words: float) -> list[tuple[str, str]]:
    """The most frequent pairs in order (ties by spelling), until this share of objects is whole.

    An object is whole when none of its words is split (Sennrich et al. 2016, algorithm 1).
    """
    counts = word_counts()
    words = {word: split_word(word) for word in counts}
    merges: list[tuple[str, str]] = []
    while True:
        whole = sum(all(len(words[w]) == 1 for w in name.split()) for name in OBJECTS)
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in words.items():
            for pair in pairwise(symbols):
                pairs[pair] += counts[word]
        if whole >= whole_words * len(OBJECTS) or not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: merge_pair(symbols, best) for word, symbols in words.items()}


def build_tokenizer(*, whole_words: float, length: int = LENGTH) -> CLIPTokenizer:
    """A CLIP tokenizer: bytes, bytes that end a word, merges, then the two special tokens."""
    merges = learn_merges(whole_words=whole_words)
    symbols = bytes_to_unicode()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges), BOS, EOS]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the tokenizer's files, replacing what is there."""
    tokenizer.save_pretrained(str(folder))


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Ids padded to the tokenizer's full length, `ids_NT`."""
    padded = tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return padded.input_ids


def attributes(items: list[Combo]) -> torch.Tensor:
    """Combinations as indices into the vocabulary, `(N, 4)` in the order of SLOTS."""
    words = [list(OBJECTS), list(STYLES), list(COLOURS), list(VIEWPOINTS)]
    rows = [
        [w.index(v) for w, v in zip(words, (c.object, c.style, c.colour, c.viewpoint), strict=True)]
        for c in items
    ]
    return torch.tensor(rows)


def random_caption(combo: Combo, rng: torch.Generator) -> tuple[str, bool]:
    """A caption with a random opening, and whether it says the style."""
    opening = OPENINGS[int(torch.randint(len(OPENINGS), (), generator=rng))]
    with_style = bool(torch.rand((), generator=rng) >= STYLE_LEFT_OUT)
    return caption(combo, opening=opening, with_style=with_style), with_style
