"""What near duplicates are found by: MinHash in bands, of many texts at once.

Texts of a high Jaccard similarity are likely to have the same smallest values under several hash functions (Broder
1997). A band is a few such values together; texts that are alike share at least one of them (Leskovec et al., Mining of
Massive Datasets, chapter 3). Where texts share a template, many share a band, but far fewer agree in enough minima.

Legend: N texts, B bands, P minima of a text, S shingles of all texts of a block.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from math import comb

import numpy as np
from numpy.typing import NDArray

from anna.folding import normalise

UInt32 = NDArray[np.uint32]
UInt64 = NDArray[np.uint64]

SHINGLE_WORDS = 3

_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))
"""Odd numbers, from xxHash, that mix the hashes of a shingle's words by their place."""

PERMUTATIONS = 128
"""Hash functions at most; more would find too little for the time they take."""

PERMUTATION_SEED = 1

MAX_MISSED = 1e-3
"""Probability with which a pair right at the threshold may be missed; false alarms only cost time."""

TEXTS_AT_ONCE = 2048
"""Texts of a block, few enough that their shingles stay in a processor's cache."""

CHARACTERS_AT_ONCE = 4 * 2**20
"""Of a block, or of one text that is longer: hashes take some ten bytes for each."""


def shingles(text: str) -> UInt32:
    """Return hashes of the runs of three words of the normalised text, sorted, each once; never empty."""
    return np.unique(_shingles([text])[0])


def _shingles(texts: Sequence[str]) -> tuple[UInt32, NDArray[np.int64]]:
    """Return the hashes of the runs of three words of all texts in turn, (S,), and where those of each begin, (N,).

    A text of fewer words is filled up with empty ones.
    """
    words = [normalise(text).split() for text in texts]
    words = [own + [""] * (SHINGLE_WORDS - len(own)) for own in words]
    hashes = np.fromiter(map(_hash, chain.from_iterable(words)), dtype=np.uint64)
    mixed = np.zeros(len(hashes) - SHINGLE_WORDS + 1, dtype=np.uint64)
    for place, factor in enumerate(_FACTORS):
        mixed += hashes[place : len(mixed) + place] * factor
    lengths = np.array([len(own) for own in words], dtype=np.int64)
    ends = np.cumsum(lengths)
    is_run = np.ones(len(hashes), dtype=np.bool_)
    is_run[ends - 1] = is_run[ends - 2] = False  # the last two words of a text begin none
    runs = (mixed >> np.uint64(32)).astype(np.uint32)
    return runs[is_run[: len(runs)]], ends - lengths - (SHINGLE_WORDS - 1) * np.arange(len(texts))


def bands(texts: Sequence[str], threshold: float) -> UInt64:
    """Return the bands of each text, (N, B): texts that are alike agree in at least one column.

    Args:
        texts: Any texts.
        threshold: Jaccard similarity of shingles, in [0.06, 1]; a pair that reaches it is missed with a probability of
            `MAX_MISSED` at most.
    """
    num_bands, rows = shape(threshold)
    found = np.zeros((len(texts), num_bands), dtype=np.uint64)
    for block, minima_PN in _minima(texts, num_bands * rows):
        for number, least in enumerate(minima_PN):
            band = number // rows
            found[block, band] = (found[block, band] + least) * _FACTORS[0]
    return found


def minima(texts: Sequence[str], threshold: float) -> UInt32:
    """Return the minima that bands are made of, (N, P). Two texts agree in each with probability their similarity."""
    num_bands, rows = shape(threshold)
    found = np.empty((len(texts), num_bands * rows), dtype=np.uint32)
    for block, minima_PN in _minima(texts, num_bands * rows):
        found[block] = minima_PN.T
    return found


def _minima(texts: Sequence[str], number: int) -> Iterator[tuple[slice, UInt32]]:
    """Yield blocks of texts, each with the smallest values of its shingles under `number` hash functions, (P, N)."""
    factors, terms = (drawn[:number] for drawn in _permutations())
    for block in _blocks(texts):
        runs, starts = _shingles(texts[block])
        # Times an odd number, plus any number, modulo 2 ** 32: a permutation of all hashes.
        values = (runs * factor + term for factor, term in zip(factors, terms, strict=True))
        yield block, np.stack([np.minimum.reduceat(each, starts) for each in values])


def _blocks(texts: Sequence[str]) -> Iterator[slice]:
    """Yield blocks of at most `TEXTS_AT_ONCE` texts, ended where they reach `CHARACTERS_AT_ONCE`."""
    begin = length = 0
    for place, text in enumerate(texts):
        length += len(text)
        if length >= CHARACTERS_AT_ONCE or place - begin == TEXTS_AT_ONCE - 1:
            yield slice(begin, place + 1)
            begin, length = place + 1, 0
    if begin < len(texts):
        yield slice(begin, len(texts))


def shape(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many rows: the most rows with which at most MAX_MISSED is missed at the threshold.

    A pair of similarity s shares no band with probability (1 - s^rows)^bands.
    """
    for rows in range(PERMUTATIONS, 1, -1):
        num_bands = PERMUTATIONS // rows
        if (1 - threshold**rows) ** num_bands <= MAX_MISSED:
            return num_bands, rows
    return PERMUTATIONS, 1


def agreeing(threshold: float) -> int:
    """Return in how many minima texts must agree to be compared: as many as can be, at most MAX_MISSED missed in all.

    What the bands miss counts too. A pair of similarity s agrees in each minimum with probability s, so the number in
    which it agrees is binomial.
    """
    num_bands, rows = shape(threshold)
    number = num_bands * rows
    allowed = MAX_MISSED - (1 - threshold**rows) ** num_bands
    shares = (comb(number, n) * threshold**n * (1 - threshold) ** (number - n) for n in range(number + 1))
    return next(n for n, at_most_n in enumerate(accumulate(shares)) if at_most_n > allowed)


@lru_cache(maxsize=1)
def _permutations() -> tuple[UInt32, UInt32]:
    draw = np.random.Generator(np.random.PCG64(PERMUTATION_SEED))
    odd, terms = draw.integers(0, 2**32, size=(2, PERMUTATIONS), dtype=np.uint32)
    return odd | np.uint32(1), terms


@lru_cache(maxsize=2**18)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
