"""Exact and near duplicates: which texts say the same.

Near duplicates are found by MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive
Datasets, chapter 3) and then verified by the exact Jaccard similarity of their shingles, so the sketch can only miss.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from datasketch import MinHash, MinHashLSH

from anna.corpus.clean import normalise

SHINGLE_WORDS = 3
PERMUTATIONS = 128

PERMUTATION_SEED = 1

MAX_MISSED = 1e-3
"""Probability with which a pair right at the threshold may be missed; false alarms cost time alone."""


def shingles(text: str) -> frozenset[int]:
    """Return 32-bit hashes of the runs of three words of the normalised text; of all of it if it is shorter."""
    words = normalise(text).split()
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return frozenset(_hash(" ".join(words[start : start + SHINGLE_WORDS])) for start in starts)


def jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    """Return |left and right| / |left or right|, in [0, 1]; neither is empty."""
    common = len(left & right)
    return common / (len(left) + len(right) - common)


class NearIndex:
    """Texts by key, searched for near duplicates."""

    def __init__(self, threshold: float) -> None:
        """Take the Jaccard similarity from which texts count as one, in (0, 1]."""
        self._threshold = threshold
        self._shingles: dict[str, frozenset[int]] = {}
        self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, params=_bands(threshold))

    def add(self, key: str, text: str) -> None:
        """Add a text under a key that is not yet there."""
        grams = shingles(text)
        if self._can_match(grams):
            self._shingles[key] = grams
            self._index.insert(key, _sketch(grams), check_duplication=False)

    def find(self, text: str) -> str | None:
        """Return the smallest key whose text is a near duplicate of `text`, or None."""
        grams = shingles(text)
        if not self._can_match(grams):
            return None
        keys = self._index.query(_sketch(grams))
        return min((key for key in keys if jaccard(grams, self._shingles[key]) >= self._threshold), default=None)

    def _can_match(self, grams: frozenset[int]) -> bool:
        """Two different sets of at most n are n / (n + 1) alike at best, so few shingles never reach the threshold."""
        return len(grams) >= self._threshold * (len(grams) + 1) - 1e-9


class Merged(NamedTuple):
    """Which texts became which."""

    survivors: dict[str, str]
    """Every key -> the key that stands for it."""
    exact: list[str]
    """Keys merged because the normalised texts are equal."""
    near: list[str]
    """Keys merged because the texts are near duplicates."""


def merge_texts(texts: Mapping[str, str], threshold: float | None) -> Merged:
    """Merge each text into the first, by key, that it duplicates.

    A text that was merged stands for no other, so a chain of small changes is not followed to its end.

    Args:
        texts: Text by key.
        threshold: Jaccard similarity from which texts are near duplicates, in (0, 1]; None for exact ones only.
    """
    survivors: dict[str, str] = {}
    exact: list[str] = []
    near: list[str] = []
    first: dict[str, str] = {}
    index = NearIndex(threshold) if threshold is not None else None
    for key in sorted(texts):
        survivor = first.setdefault(normalise(texts[key]), key)
        if survivor != key:
            exact.append(key)
            survivors[key] = survivors[survivor]
            continue
        found = index.find(texts[key]) if index is not None else None
        survivors[key] = found or key
        if found:
            near.append(key)
        elif index is not None:
            index.add(key, texts[key])
    return Merged(survivors, exact, near)


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


def _sketch(grams: Iterable[int]) -> MinHash:
    # Drawing the permutations takes far longer than a sketch: copies share them.
    sketch = _blank().copy()
    sketch.update_batch(sorted(grams))
    return sketch


def _identity(value: int) -> int:
    """Shingles are hashes already."""
    return value


@lru_cache(maxsize=2**16)
def _hash(shingle: str) -> int:
    return int.from_bytes(hashlib.blake2b(shingle.encode(), digest_size=4).digest())
