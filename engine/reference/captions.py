"""Captions as token ids: a byte-level BPE in CLIP's style, trained on the captions themselves.

Shapes: N captions, T tokens (suffix `_NT`).
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from engine.reference.vocabulary import (
    GENERIC,
    OBJECTS,
    OPENINGS,
    Scene,
    caption,
    plural,
    scenes,
)

LENGTH = 32
"""Tokens of a padded caption, as `model_max_length`."""
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def bytes_to_unicode() -> list[str]:
    """Return the printable stand-ins of the 256 bytes, in CLIP's order (openai/CLIP, tokenizer)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(len(rest))]


def word_counts() -> Counter[str]:
    """Return the count of each word in the captions of one object, and in a few of two.

    Objects occur in the singular and the plural, generic words as often as an object.
    """
    counts: Counter[str] = Counter()
    for scene in scenes():
        for opening in OPENINGS:
            counts.update(caption(scene, opening=opening).split())
    names = list(OBJECTS)
    for first, second in pairwise(names):
        counts.update(caption(Scene(first, "noto", second=second)).split())
    usual = counts[names[0]]
    counts.update({word: usual for noun in GENERIC for word in (noun, plural(noun))})
    return counts


def split_word(word: str) -> list[str]:
    """Return a word as single symbols, the last with CLIP's end-of-word suffix."""
    return [*word[:-1], word[-1] + "</w>"]


def merge_pair(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the symbols with every adjacent `pair` joined, left to right."""
    merged: list[str] = []
    for symbol in symbols:
        # A joined symbol is longer than the pair's first half, so it cannot be joined twice.
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def learn_merges(*, whole_words: float) -> list[tuple[str, str]]:
    """Return the most frequent pairs, ties by spelling, until this share of objects is whole.

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
    """Return a CLIP tokenizer: bytes, bytes that end a word, merges, the two special tokens."""
    merges = learn_merges(whole_words=whole_words)
    symbols = bytes_to_unicode()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges), BOS, EOS]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the tokenizer's files, replacing existing ones."""
    tokenizer.save_pretrained(str(folder))


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Return ids padded to the tokenizer's full length, `ids_NT`."""
    padded = tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return padded.input_ids
