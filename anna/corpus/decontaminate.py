"""Which training texts are held-out texts, too, so that no score is of something learnt by heart.

Reference for exact and shingle overlap: GPT-3, arXiv:2005.14165, appendix C (there 13-grams; here whole texts, because
queries are short and a quotation is no leak of an answer).
"""

import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from anna.corpus.dedup import NearIndex
from anna.corpus.minhash import UInt64, bands
from anna.folding import normalise

_VARIATION_SELECTORS = range(0xFE00, 0xFE10)


class _Unseen(dict[int, int | None]):
    """Code point -> itself, or None where nobody sees it; filled as it is asked."""

    def __missing__(self, code: int) -> int | None:
        is_unseen = code in _VARIATION_SELECTORS or unicodedata.category(chr(code)) == "Cf"
        self[code] = None if is_unseen else code
        return self[code]


_UNSEEN = _Unseen()


class HeldOutTexts:
    """Every text that a held-out task is scored on, or shows as an example."""

    def __init__(self, texts: Iterable[str], threshold: float | None) -> None:
        """Take the texts and the Jaccard similarity from which another counts as one of them; None: equal ones only."""
        distinct = {normalise(text): text for text in map(_visible, sorted(texts))}
        self._exact, self._threshold = frozenset(distinct), threshold
        self._texts = list(distinct.values())
        if threshold is not None:
            self._bands = bands(self._texts, threshold)

    def verdicts(self, texts: Iterable[str]) -> Mapping[str, str]:
        """Return `contaminated` for each held-out text, `near_contaminated` for each near duplicate of one.

        Texts are compared as they are seen: a soft hyphen or a full-width letter makes no other text.
        """
        rest, found = [], {}
        for text in dict.fromkeys(texts):
            if normalise(_visible(text)) in self._exact:
                found[text] = "contaminated"
            else:
                rest.append(text)
        # Without held-out texts nothing is near one, and millions of texts need no sketch.
        if self._threshold is None or not self._exact:
            return found
        all_bands = bands([_visible(text) for text in rest], self._threshold)
        places = np.flatnonzero(_are_shared(all_bands, self._bands)).tolist()
        theirs = np.flatnonzero(_are_shared(self._bands, all_bands[places])).tolist()
        sharing = [self._texts[place] for place in theirs] + [_visible(rest[place]) for place in places]
        index = NearIndex(sharing, np.concatenate([self._bands[theirs], all_bands[places]]), self._threshold)
        for number in range(len(theirs)):
            index.add(number)
        for number, place in enumerate(places, start=len(theirs)):
            if index.find(number) is not None:
                found[rest[place]] = "near_contaminated"
        return found


def _visible(text: str) -> str:
    """Return `text` without characters that nobody sees, others in their usual form (Unicode NFKC)."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text.translate(_UNSEEN))


def _are_shared(own: UInt64, others: UInt64) -> NDArray[np.bool_]:
    """Return whether each text has a band in common with any of the others, (N,)."""
    is_shared = np.zeros(len(own), dtype=np.bool_)
    for column, other in zip(own.T, others.T, strict=True):
        is_shared |= np.isin(column, other)
    return is_shared
