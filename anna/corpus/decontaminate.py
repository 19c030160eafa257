"""Training rows that hold a held-out text, so that no score is of something learnt by heart.

Reference for exact and shingle overlap: GPT-3, arXiv:2005.14165, appendix C (there 13-grams; here whole texts, because
queries are short and a quotation is no leak of an answer).
"""

from collections.abc import Iterable, Mapping

import numpy as np

from anna.corpus.dedup import NearIndex
from anna.corpus.minhash import bands
from anna.folding import normalise


class HeldOutTexts:
    """Every text that a held-out task is scored on, or shows as an example."""

    def __init__(self, texts: Iterable[str], threshold: float | None) -> None:
        """Take the texts and the Jaccard similarity from which another counts as one of them; None: equal ones only."""
        distinct = {normalise(text): text for text in sorted(texts)}
        self._exact, self._threshold = frozenset(distinct), threshold
        if threshold is not None and distinct:
            held_out = list(distinct.values())
            self._bands = bands(held_out, threshold)
            self._near = NearIndex(threshold)
            for number, text in enumerate(held_out):
                self._near.add(number, text, self._bands[number])

    def verdicts(self, texts: Iterable[str]) -> Mapping[str, str]:
        """Return `contaminated` for each held-out text, `near_contaminated` for each near duplicate of one."""
        rest, found = [], {}
        for text in dict.fromkeys(texts):
            if normalise(text) in self._exact:
                found[text] = "contaminated"
            else:
                rest.append(text)
        # Without any text there is nothing to be near to, and no sketch to take of millions of others.
        if self._threshold is None or not self._exact:
            return found
        all_bands = bands(rest, self._threshold)
        is_shared = np.zeros(len(rest), dtype=np.bool_)
        for own, theirs in zip(all_bands.T, self._bands.T, strict=True):
            is_shared |= np.isin(own, theirs)
        for place in np.flatnonzero(is_shared).tolist():
            if self._near.find(rest[place], all_bands[place]) is not None:
                found[rest[place]] = "near_contaminated"
        return found
