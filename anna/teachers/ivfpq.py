"""Approximate search where a collection is too large for an exhaustive one: FAISS IVF-PQ, then exact scores.

The index holds a few bytes per document; the vectors of the candidates it names are read from disk, so that scores and
their order are exact and only the set of documents found is approximate.
Reference: Jégou et al. 2011, Product quantization for nearest neighbor search.

Legend: N documents, D dimensions, Q queries, K results per query.
"""

import math

import faiss
import numpy as np

from anna.errors import InputError
from anna.segments import Int
from anna.teachers.topk import Ranked, Scores, rescore
from anna.teachers.vectors import VectorFile

PLACE = "retrieve_dense.index"
"""Where its parameters stand, for messages."""

TRAIN_PER_LIST = 40
"""Vectors that each list's centre is learnt from; FAISS warns below 39."""

CODEBOOK = 256
"""Entries of a codebook of one byte, and so the fewest vectors that it can be learnt from."""


def build(docs: VectorFile, *, nlist: int | None, m: int, nprobe: int) -> faiss.IndexIVFPQ:
    """Return an index of `docs`; the same vectors give the same index.

    Args:
        docs: Unit vectors, N >= 256.
        nlist: Lists that documents are divided into; None: four times the square root of N, as FAISS advises, but no
            more than there are vectors to learn from.
        m: Bytes per document.
        nprobe: Lists searched per query.

    Raises:
        InputError: If D is no multiple of `m`, or there are fewer documents than lists or codebook entries.
    """
    num_docs, num_dims = docs.shape
    nlist = nlist or max(1, min(4 * math.isqrt(num_docs), num_docs // TRAIN_PER_LIST))
    if num_dims % m:
        raise InputError(f"{PLACE}.m is {m}, which does not divide the model's {num_dims} dimensions; choose one")
    if num_docs < max(nlist, CODEBOOK):
        raise InputError(
            f"{PLACE} is for collections of at least {max(nlist, CODEBOOK)} documents, this one has {num_docs}; raise "
            f"{PLACE}.min_docs"
        )
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(num_dims), num_dims, nlist, m, 8, faiss.METRIC_INNER_PRODUCT)
    num_trained = min(num_docs, max(nlist * TRAIN_PER_LIST, CODEBOOK))
    index.train(docs.take(np.linspace(0, num_docs - 1, num_trained).astype(np.int64)))
    for block in docs.blocks():
        index.add(block)
    index.nprobe = min(nprobe, nlist)
    return index


def search(
    index: faiss.IndexIVFPQ, query_emb_QD: Scores, docs: VectorFile, *, k: int, num_rescored: int, excluded_Q: Int
) -> Ranked:
    """Return the best documents among those that the index names, both (Q, K), K = min(k, N).

    Args:
        index: As `build` gives it.
        query_emb_QD: Unit vectors.
        docs: What was indexed.
        k: Results per query; where fewer are found, the last scores are -inf.
        num_rescored: Candidates that are scored exactly; at least one more than k counts.
        excluded_Q: One document of each query that must not be found, or -1.
    """
    num_named = min(max(num_rescored, k + 1), len(docs))
    _, named_QM = index.search(query_emb_QD, num_named)
    return rescore(query_emb_QD, named_QM.astype(np.int64), docs.take, k, excluded_Q)


def recall(found: Ranked, exact: Ranked) -> float:
    """Return which share of the exact results was found, 0 to 1; results with score -inf are none."""
    pairs = [{(row, int(doc)) for row, doc in zip(*_finite(ranked), strict=True)} for ranked in (found, exact)]
    return len(pairs[0] & pairs[1]) / max(len(pairs[1]), 1)


def _finite(ranked: Ranked) -> tuple[Int, Int]:
    rows, columns = np.nonzero(np.isfinite(ranked[1]))
    return rows, ranked[0][rows, columns]
