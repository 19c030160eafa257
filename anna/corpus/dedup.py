"""Exact and near duplicates: which texts say the same.

Near duplicates are found by MinHash in bands and then verified by the exact Jaccard similarity of their shingles, so
the sketch can only miss. Few texts share a band with another, and only those are looked at one by one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from anna.corpus.drops import Drop
from anna.corpus.minhash import UInt32, UInt64, bands, shingles
from anna.folding import normalise


def jaccard(left: UInt32, right: UInt32) -> float:
    """Return |left and right| / |left or right| of two sorted sets, in [0, 1]; neither is empty."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


class NearIndex:
    """Texts by number, searched for near duplicates."""

    def __init__(self, threshold: float) -> None:
        """Take the Jaccard similarity from which texts count as one, in (0, 1]."""
        self._threshold = threshold
        self._shingles: dict[int, UInt32] = {}
        self._sharing: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, number: int, text: str, own_bands: UInt64) -> None:
        """Add a text under a number that is not yet there."""
        self._shingles[number] = shingles(text)
        for key in enumerate(own_bands.tolist()):
            self._sharing[key].append(number)

    def find(self, text: str, own_bands: UInt64) -> int | None:
        """Return the smallest number whose text is a near duplicate of `text`, or None."""
        keys = enumerate(own_bands.tolist())
        candidates = sorted({number for key in keys for number in self._sharing.get(key, ())})
        if not candidates:
            return None
        grams = shingles(text)
        return next((one for one in candidates if jaccard(grams, self._shingles[one]) >= self._threshold), None)


def near_duplicates(texts: Sequence[str], threshold: float) -> dict[int, int]:
    """Return the place of each text that is a near duplicate, and the place of the first text that it is one of.

    A text that is one stands for no other, so a chain of small changes is not followed to its end.

    Args:
        texts: In the order in which they come before each other.
        threshold: Jaccard similarity from which texts are near duplicates, in (0, 1].
    """
    all_bands = bands(texts, threshold)
    index, found = NearIndex(threshold), {}
    for place in np.flatnonzero(_is_shared(all_bands)).tolist():
        first = index.find(texts[place], all_bands[place])
        if first is None:
            index.add(place, texts[place], all_bands[place])
        else:
            found[place] = first
    return found


def _is_shared(all_bands: UInt64) -> NDArray[np.bool_]:
    """Return whether a text has a band in common with another, (N,)."""
    is_shared = np.zeros(len(all_bands), dtype=np.bool_)
    for column in all_bands.T:
        order = np.argsort(column)
        is_next = column[order[1:]] == column[order[:-1]]
        is_shared[order[1:][is_next]] = is_shared[order[:-1][is_next]] = True
    return is_shared


def merge_texts(texts: Mapping[str, str], threshold: float | None, kind: str, drop: Drop) -> dict[str, str]:
    """Return which text stands for each: the first, by key, that it duplicates.

    A near duplicate stands for no text but its exact copies.

    Args:
        texts: Text by key, each under one.
        threshold: Jaccard similarity from which texts are near duplicates, in (0, 1]; None for exact ones only.
        kind: What they are called in the reasons `duplicate_<kind>` and `near_duplicate_<kind>`.
        drop: Counts those that became another.
    """
    keys, distinct = sorted(texts), list[str]()
    places: dict[str, int] = {}
    own = []
    for key in keys:
        own.append(places.setdefault(normalise(texts[key]), len(distinct)))
        if own[-1] == len(distinct):
            distinct.append(key)
    near = {} if threshold is None else near_duplicates([texts[key] for key in distinct], threshold)
    survivors: dict[str, str] = {}
    for key, place in zip(keys, own, strict=True):
        text = texts[key]
        if key != distinct[place]:
            drop(f"duplicate_{kind}", f"{key}: {text}")
        elif place in near:
            drop(f"near_duplicate_{kind}", f"{key}: {text}")
        survivors[text] = texts[distinct[near.get(place, place)]]
    return survivors
