"""Training rows that hold a held-out text, so that no score is of something learnt by heart.

Reference for exact and shingle overlap: GPT-3, arXiv:2005.14165, appendix C (there 13-grams; here whole texts, because
queries are short and a quotation is no leak of an answer).
"""

from collections.abc import Iterable

from anna.corpus.dedup import NearIndex, outline
from anna.folding import normalise


class HeldOutTexts:
    """Every text that a held-out task is scored on, or shows as an example."""

    def __init__(self, texts: Iterable[str], threshold: float | None) -> None:
        """Take the texts and the Jaccard similarity from which another counts as one of them; None: equal ones only."""
        distinct = {normalise(text): text for text in sorted(texts)}
        self._exact = frozenset(distinct)
        # Without any text there is nothing to be near to, and no outline to take of millions of others.
        self._near = NearIndex(threshold) if threshold is not None and distinct else None
        if self._near is not None:
            for key, text in distinct.items():
                self._near.add(key, outline(text))
        self._verdicts: dict[str, str | None] = {}

    def verdict(self, text: str) -> str | None:
        """Return `contaminated` for a held-out text, `near_contaminated` for a near duplicate of one, else None."""
        if text not in self._verdicts:
            self._verdicts[text] = self._judge(text)
        return self._verdicts[text]

    def _judge(self, text: str) -> str | None:
        if normalise(text) in self._exact:
            return "contaminated"
        if self._near is not None and self._near.find(outline(text)) is not None:
            return "near_contaminated"
        return None
