"""Exact top-k with a stated order of ties and bounded memory.

Legend: Q queries, N documents, K results per query, D dimensions.
"""

from collections.abc import Callable, Iterable, Iterator

import faiss
import numpy as np
from numpy.typing import NDArray

from anna.segments import Int

Scores = NDArray[np.float32]
Ranked = tuple[Int, Scores]
"""Positions of documents and their scores, (Q, K) each, best first."""

Block = tuple[int, Scores]
"""Position of a block's first document, and the documents' unit vectors, (N, D)."""

SLACK = 32
"""Results asked of FAISS beyond those wanted, so that ties and rounding at the cut are settled by exact scores."""

ROUNDING = 1e-5
"""Larger than any error of a float32 inner product of unit vectors."""

CHUNK_BYTES = 16 * 2**20
"""Largest intermediate array."""


def top_k(scores_QN: Scores, k: int) -> Ranked:
    """Return the best documents of each query and their scores, both (Q, K), best first, K = min(k, N).

    Ties, at the cut too, go to the document that comes first. Scores may be -inf, not NaN.
    """
    num_docs = scores_QN.shape[1]
    k = min(k, num_docs)
    kth_Q = np.partition(scores_QN, num_docs - k, axis=1)[:, num_docs - k, None]
    is_taken_QN = scores_QN >= kth_Q
    tied_Q = np.flatnonzero(np.count_nonzero(is_taken_QN, axis=1) > k)
    if len(tied_Q):  # few queries, and counting ties costs more than all else
        is_above_QN, is_tied_QN = scores_QN[tied_Q] > kth_Q[tied_Q], scores_QN[tied_Q] == kth_Q[tied_Q]
        num_open_Q = k - np.count_nonzero(is_above_QN, axis=1)[:, None]
        is_taken_QN[tied_Q] = is_above_QN | (is_tied_QN & (np.cumsum(is_tied_QN, axis=1) <= num_open_Q))
    index_QK = np.nonzero(is_taken_QN)[1].reshape(-1, k)
    score_QK = np.take_along_axis(scores_QN, index_QK, axis=1)
    order_QK = np.argsort(-score_QK, axis=1, kind="stable")
    return np.take_along_axis(index_QK, order_QK, axis=1), np.take_along_axis(score_QK, order_QK, axis=1)


def numbered(doc_blocks: Iterable[Scores]) -> Iterator[Block]:
    """Yield blocks that follow each other, with their positions."""
    start = 0
    for doc_emb_ND in doc_blocks:
        yield start, doc_emb_ND
        start += len(doc_emb_ND)


def nearest_of_block(block: Block, query_emb_QD: Scores, k: int, excluded_Q: Int) -> Ranked:
    """Return the documents of largest inner product of a block, both (Q, K), best first, K = min(k, N).

    FAISS's exhaustive search finds candidates; their scores are computed again in float64, one pair at a time, and
    rounded to float32. So `merge` of all blocks depends neither on blocks nor on which other queries are searched with,
    and ties go to the document that comes first. A query for which more documents tie at the cut than SLACK has room
    for is scored against every document of the block.

    Args:
        block: N >= 1 documents.
        query_emb_QD: Unit vectors.
        k: Results per query, > 0.
        excluded_Q: Position of one document for each query that must not be found, or -1; its score is -inf.

    Returns:
        Positions in the collection, and scores.
    """
    start, doc_emb_ND = block
    excluded_Q = excluded_Q - start
    num_asked = min(k + 1 + SLACK, len(doc_emb_ND))
    rough_QM, found_QM = faiss.knn(query_emb_QD, doc_emb_ND, num_asked, metric=faiss.METRIC_INNER_PRODUCT)
    index_QK, score_QK = rescore(query_emb_QD, found_QM.astype(np.int64), doc_emb_ND.__getitem__, k, excluded_Q)
    if num_asked < len(doc_emb_ND):
        for row in np.flatnonzero(rough_QM.min(axis=1) + ROUNDING >= score_QK[:, -1]):
            scores_N = _inner_products(query_emb_QD[row], doc_emb_ND)
            if 0 <= excluded_Q[row] < len(doc_emb_ND):
                scores_N[excluded_Q[row]] = -np.inf
            index_QK[row], score_QK[row] = (found[0] for found in top_k(scores_N[None], k))
    return index_QK + start, score_QK


def merge(found: Iterable[Ranked], k: int) -> Ranked:
    """Return the best `k` of what was found in the blocks of a collection.

    Args:
        found: Of each block, in order, at least one; each holds its best `k` or all of its documents.
        k: Results per query.
    """
    parts = iter(found)
    index_QK, score_QK = next(parts)
    for own_QK, best_QK in parts:
        # Earlier blocks stand first, as do earlier documents of each: so `top_k` breaks ties as it should.
        place_QK, score_QK = top_k(np.concatenate([score_QK, best_QK], axis=1), k)
        index_QK = np.take_along_axis(np.concatenate([index_QK, own_QK], axis=1), place_QK, axis=1)
    return index_QK, score_QK


def rescore(query_emb_QD: Scores, found_QM: Int, take: Callable[[Int], Scores], k: int, excluded_Q: Int) -> Ranked:
    """Return the best of some candidates by exact score, both (Q, K), best first, K = min(k, M); ties as in `top_k`.

    Args:
        query_emb_QD: Unit vectors.
        found_QM: Candidates of each query, distinct but for -1, which is none.
        take: From positions, of any shape, to the documents' unit vectors.
        k: Results per query.
        excluded_Q: As for `nearest_of_block`; where fewer than K are left, the last scores are -inf.
    """
    index_QK = np.empty((len(query_emb_QD), min(k, found_QM.shape[1])), dtype=np.int64)
    score_QK = np.empty(index_QK.shape, dtype=np.float32)
    step = max(1, CHUNK_BYTES // (4 * found_QM.shape[1] * query_emb_QD.shape[1]))
    for start in range(0, len(query_emb_QD), step):
        rows = slice(start, start + step)
        sorted_QM = np.sort(found_QM[rows], axis=1)  # by position, which is how `top_k` breaks ties
        exact_QM = _inner_products(query_emb_QD[rows, None, :], take(np.maximum(sorted_QM, 0)))
        exact_QM[(sorted_QM == excluded_Q[rows, None]) | (sorted_QM < 0)] = -np.inf
        place_QK, score_QK[rows] = top_k(exact_QM, k)
        index_QK[rows] = np.take_along_axis(sorted_QM, place_QK, axis=1)
    return index_QK, score_QK


def _inner_products(left: Scores, right: Scores) -> Scores:
    """Sum products along the last axis in float64; the same pair gives the same bits in whatever company."""
    return np.asarray(np.einsum("...d,...d->...", left, right, dtype=np.float64), dtype=np.float32)
