"""Vocabularies of tiny tokenizers, learned from a few sentences.

The trainers of `tokenizers` break ties by the order of a hash map, so that each process would have
another model.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

SENTENCES = (
    "a red apple on a wooden table",
    "a painting of a sailing ship at night",
    "an old castle in the green forest",
    "two small birds, a photo of the sea",
)
WORDS = [word for sentence in SENTENCES for word in re.findall(r"\w+|[^\w\s]+", sentence)]


def learn_merges(words: Iterable[Sequence[str]], most: int) -> list[tuple[str, str]]:
    """Return at most so many byte-pair merges (Sennrich et al. 2016) of words, given as symbols.

    The most frequent pair is merged first; of equally frequent ones the first in the alphabet.
    """
    left, merges = [list(word) for word in words], list[tuple[str, str]]()
    while len(merges) < most:
        counts = Counter(pair for word in left for pair in pairwise(word))
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        left = [_merged(word, pair) for word in left]
    return merges


def _merged(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    merged = list[str]()
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def scored_pieces(most: int) -> list[tuple[str, float]]:
    """Return at most so many pieces of "▁words", each with its log share of the sentences."""
    text = "".join(f"▁{word}" for word in WORDS)
    letters = "▁abcdefghijklmnopqrstuvwxyz,."
    merges = learn_merges(([*f"▁{word}"] for word in WORDS), most - len(letters))
    pieces = [*letters, *dict.fromkeys("".join(pair) for pair in merges)]
    return [(piece, math.log((text.count(piece) + 1) / len(text))) for piece in pieces]
