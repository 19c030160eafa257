"""Exact and near duplicates: which texts say the same.

Near duplicates are found by MinHash in bands and then verified by the exact Jaccard similarity of their shingles. So
the sketch can miss a pair, but never adds a wrong one. Few texts share a band with another, and only those are looked
at one by one. Of the pairs that share a band, only those that agree in enough minima are verified.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from anna import log
from anna.corpus.drops import Drop
from anna.corpus.minhash import UInt32, UInt64, agreeing, bands, minima, shingles
from anna.folding import normalise


def jaccard(own: UInt32, others: Sequence[UInt32]) -> NDArray[np.float64]:
    """Return |own and other| / |own or other| for each of several sorted sets, in [0, 1]; none is empty."""
    sizes, members = np.array([len(each) for each in others]), np.concatenate(others)
    # A member above all of `own` is compared with its last.
    is_common = own[np.searchsorted(own[:-1], members)] == members
    common = np.add.reduceat(is_common, np.cumsum(sizes) - sizes, dtype=np.int64)
    return np.asarray(common / (len(own) + sizes - common))


class NearIndex:
    """Texts, each known by its place. Near duplicates of any of them are looked for among those added so far."""

    def __init__(self, texts: Sequence[str], all_bands: UInt64, threshold: float) -> None:
        """Take texts, their bands and the Jaccard similarity from which two count as one, in (0, 1]; add none yet."""
        self._texts, self._bands, self._threshold = texts, all_bands, threshold
        self._minima, self._agreeing = minima(texts, threshold), agreeing(threshold)
        self._sharing: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self._shingles: dict[int, UInt32] = {}

    def add(self, place: int) -> None:
        """Add the text at `place`."""
        for key in enumerate(self._bands[place].tolist()):
            self._sharing[key].append(place)

    def find(self, place: int) -> int | None:
        """Return the first place of an added text that the text at `place` is a near duplicate of, or None."""
        keys = enumerate(self._bands[place].tolist())
        sharing = sorted(set[int]().union(*(self._sharing.get(key, ()) for key in keys)))
        if not sharing:
            return None
        agree = np.count_nonzero(self._minima[sharing] == self._minima[place], axis=1)
        likely = list(compress(sharing, agree >= self._agreeing))
        if not likely:
            return None
        similarities = jaccard(self._own(place), [self._own(one) for one in likely])
        return next(compress(likely, similarities >= self._threshold), None)

    def _own(self, place: int) -> UInt32:
        """Return the shingles of the text at `place`, made when first asked for: those of most texts never are."""
        if place not in self._shingles:
            self._shingles[place] = shingles(self._texts[place])
        return self._shingles[place]


def near_duplicates(texts: Sequence[str], threshold: float) -> dict[int, int]:
    """Return, by the place of each near duplicate, the place of the first text that it duplicates.

    A near duplicate stands for no other text, so a chain of small changes is not followed to its end.

    Args:
        texts: In order: of two near duplicates the earlier stays.
        threshold: Jaccard similarity from which texts are near duplicates, in (0, 1].
    """
    all_bands = bands(texts, threshold)
    places = np.flatnonzero(_is_shared(all_bands)).tolist()
    index, found = NearIndex([texts[place] for place in places], all_bands[places], threshold), {}
    for number, place in enumerate(log.progress(places, unit="text", desc="comparing similar texts")):
        first = index.find(number)
        if first is None:
            index.add(number)
        else:
            found[place] = places[first]
    return found


def _is_shared(all_bands: UInt64) -> NDArray[np.bool_]:
    """Return whether a text has a band in common with another, (N,)."""
    is_shared = np.zeros(len(all_bands), dtype=np.bool_)
    for column in all_bands.T:
        _, number, times = np.unique(column, return_inverse=True, return_counts=True)
        is_shared |= times[number] > 1
    return is_shared


def merge_texts(texts: Mapping[str, str], threshold: float | None, kind: str, drop: Drop) -> dict[str, str]:
    """Return, for each text, the one that stands for it: the first, by key, that it duplicates.

    A near duplicate stands for no text but its exact copies.

    Args:
        texts: Text by key; no text has two keys.
        threshold: Jaccard similarity from which texts are near duplicates, in (0, 1]; None for exact ones only.
        kind: What they are called in the reasons `duplicate_<kind>` and `near_duplicate_<kind>`.
        drop: Counts those that became another.
    """
    firsts: dict[str, str] = {}
    first_of = {key: firsts.setdefault(normalise(texts[key]), key) for key in sorted(texts)}
    distinct = list(firsts.values())
    places = {} if threshold is None else near_duplicates([texts[key] for key in distinct], threshold)
    near = {distinct[place]: distinct[earlier] for place, earlier in places.items()}
    survivors: dict[str, str] = {}
    for key, first in first_of.items():
        if key != first:
            drop(f"duplicate_{kind}", f"{key}: {texts[key]}")
        elif key in near:
            drop(f"near_duplicate_{kind}", f"{key}: {texts[key]}")
        survivors[texts[key]] = texts[near.get(first, first)]
    return survivors
