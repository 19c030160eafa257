"""Exact and near duplicates: which texts say the same.

Near duplicates are found by MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive
Datasets, chapter 3) and then verified by the exact Jaccard similarity of their shingles, so the sketch can only miss.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from anna.corpus.drops import Drop
from anna.folding import normalise

SHINGLE_WORDS = 3

_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))
"""Odd numbers, from xxHash, that mix the hashes of a shingle's words by their place."""

PERMUTATIONS = 128

PERMUTATION_SEED = 1

MAX_MISSED = 1e-3
"""Probability with which a pair right at the threshold may be missed; false alarms cost time alone."""


def shingles(text: str) -> NDArray[np.uint32]:
    """Return hashes of the runs of three words of the normalised text, sorted, each once; never empty."""
    words = [_hash(word) for word in normalise(text).split()]
    missing = SHINGLE_WORDS - len(words)
    hashes = np.array(words + [0] * missing, dtype=np.uint64)
    mixed = sum(hashes[place : len(hashes) - 2 + place] * factor for place, factor in enumerate(_FACTORS))
    return np.unique(np.asarray(mixed >> np.uint64(32), dtype=np.uint32))


def jaccard(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float:
    """Return |left and right| / |left or right| of two sorted sets, in [0, 1]; neither is empty."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


class Outline(NamedTuple):
    """What near duplicates of a text are found by."""

    shingles: NDArray[np.uint32]
    sketch: MinHash


def outline(text: str) -> Outline:
    """Return the text's shingles and their MinHash."""
    grams = shingles(text)
    # Drawing the permutations takes far longer than a sketch: copies share them.
    sketch = _blank().copy()
    sketch.update_batch(grams.tolist())
    return Outline(grams, sketch)


class NearIndex:
    """Texts by key, searched for near duplicates."""

    def __init__(self, threshold: float) -> None:
        """Take the Jaccard similarity from which texts count as one, in (0, 1]."""
        self._threshold = threshold
        self._shingles: dict[str, NDArray[np.uint32]] = {}
        self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, params=_bands(threshold))

    def add(self, key: str, text: Outline) -> None:
        """Add a text under a key that is not yet there."""
        self._shingles[key] = text.shingles
        self._index.insert(key, text.sketch, check_duplication=False)

    def find(self, text: Outline) -> str | None:
        """Return the smallest key whose text is a near duplicate of `text`, or None."""
        keys = self._index.query(text.sketch)
        return min(
            (key for key in keys if jaccard(text.shingles, self._shingles[key]) >= self._threshold), default=None
        )


def merge_texts(texts: Mapping[str, str], threshold: float | None, kind: str, drop: Drop) -> dict[str, str]:
    """Return which text stands for each: the first, by key, that it duplicates.

    A text that was merged stands for no other, so a chain of small changes is not followed to its end.

    Args:
        texts: Text by key, each under one.
        threshold: Jaccard similarity from which texts are near duplicates, in (0, 1]; None for exact ones only.
        kind: What they are called in the reasons `duplicate_<kind>` and `near_duplicate_<kind>`.
        drop: Counts those that became another.
    """
    survivors: dict[str, str] = {}
    first: dict[str, str] = {}
    index = NearIndex(threshold) if threshold is not None else None
    for key in sorted(texts):
        text = texts[key]
        same = first.setdefault(normalise(text), text)
        if same != text:
            drop(f"duplicate_{kind}", f"{key}: {text}")
            survivors[text] = survivors[same]
            continue
        survivors[text] = text
        if index is None:
            continue
        outlined = outline(text)
        found = index.find(outlined)
        if found is None:
            index.add(key, outlined)
        else:
            drop(f"near_duplicate_{kind}", f"{key}: {text}")
            survivors[text] = texts[found]
    return survivors


def _bands(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many rows: the longest rows that miss at most MAX_MISSED at the threshold.

    A pair of similarity s shares no band with probability (1 - s^rows)^bands.
    """
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        if (1 - threshold**rows) ** bands <= MAX_MISSED:
            return bands, rows
    return PERMUTATIONS, 1


@lru_cache(maxsize=1)
def _blank() -> MinHash:
    return MinHash(num_perm=PERMUTATIONS, seed=PERMUTATION_SEED, hashfunc=_identity, scheme="affine32")


def _identity(value: int) -> int:
    """Shingles are hashes already."""
    return value


@lru_cache(maxsize=2**18)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
