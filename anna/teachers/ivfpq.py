"""Approximate search where a collection is too large for an exhaustive one: FAISS IVF-PQ, then exact scores.

The index holds a few bytes per document; the vectors of the candidates it names are read from disk, so that scores and
their order are exact and only the set of documents found is approximate.
Reference: Jégou et al. 2011, Product quantization for nearest neighbor search.

Legend: N documents, D dimensions, Q queries, K results per query.
"""

import math
from typing import cast

import faiss
import numpy as np

from anna.engine import Engine
from anna.errors import InputError
from anna.segments import Int
from anna.teachers.dense import CODEBOOK
from anna.teachers.topk import Ranked, Scores, rescore
from anna.teachers.vectors import VectorFile

PLACE = "retrieve_dense.index"
"""Where its parameters stand, for messages."""

TRAIN_PER_LIST = 40
"""Vectors that each centre is learnt from, of a list or of a codebook; FAISS warns below 39."""

QUERIES_AT_ONCE = 4096
"""Queries of one search of the index."""


def build(docs: VectorFile, *, nlist: int | None, m: int, nprobe: int, where: Engine) -> faiss.IndexIVFPQ:
    """Return an index of `docs`; the same vectors give the same index.

    Lists and codebooks are learnt here; the codes of each block of documents are computed where the engine says.

    Args:
        docs: Unit vectors, N >= 256 and `nlist`.
        nlist: Lists that documents are divided into; None: four times the square root of N, as FAISS advises, but no
            more than there are vectors to learn from.
        m: Bytes per document.
        nprobe: Lists searched per query.
        where: What computes.

    Raises:
        InputError: If D is no multiple of `m`.
    """
    num_docs, num_dims = docs.shape
    nlist = nlist or max(1, min(4 * math.isqrt(num_docs), num_docs // TRAIN_PER_LIST))
    if num_dims % m:
        raise InputError(f"{PLACE}.m is {m}, which does not divide the model's {num_dims} dimensions; choose one")
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(num_dims), num_dims, nlist, m, 8, faiss.METRIC_INNER_PRODUCT)
    num_trained = min(num_docs, TRAIN_PER_LIST * max(nlist, CODEBOOK))
    index.train(docs.take(np.linspace(0, num_docs - 1, num_trained).astype(np.int64)))
    empty = faiss.clone_index(index)
    for shard in where.map(_shard, docs.blocks(), empty):
        index.merge_from(shard, index.ntotal)
    index.nprobe = min(nprobe, nlist)
    return index


def search(
    index: faiss.IndexIVFPQ,
    query_emb_QD: Scores,
    docs: VectorFile,
    *,
    k: int,
    num_rescored: int,
    excluded_Q: Int,
    where: Engine,
) -> Ranked:
    """Return the best documents among those that the index names, both (Q, K), K = min(k, N).

    Args:
        index: As `build` gives it.
        query_emb_QD: Unit vectors.
        docs: What was indexed.
        k: Results per query; where fewer are found, the last scores are -inf.
        num_rescored: Candidates that are scored exactly; at least one more than k counts.
        excluded_Q: One document of each query that must not be found, or -1.
        where: What searches the index; exact scores are computed here, where the vectors lie.
    """
    num_named = min(max(num_rescored, k + 1), len(docs))
    parts = (query_emb_QD[start : start + QUERIES_AT_ONCE] for start in range(0, len(query_emb_QD), QUERIES_AT_ONCE))
    named_QM = np.concatenate(list(where.map(_named, parts, index, num_named)))
    return rescore(query_emb_QD, named_QM, docs.take, k, excluded_Q)


def recall(found: Ranked, exact: Ranked) -> float:
    """Return which share of the exact results was found, 0 to 1; results with score -inf are none."""
    pairs = [{(row, int(doc)) for row, doc in zip(*_finite(ranked), strict=True)} for ranked in (found, exact)]
    return len(pairs[0] & pairs[1]) / max(len(pairs[1]), 1)


def _shard(block: Scores, empty: faiss.IndexIVFPQ) -> faiss.IndexIVFPQ:
    """Return an index of one block of documents, with the lists and codebooks of an empty one."""
    index = cast("faiss.IndexIVFPQ", faiss.clone_index(empty))
    index.add(block)
    return index


def _named(query_emb_QD: Scores, index: faiss.IndexIVFPQ, num_named: int) -> Int:
    """Return the candidates of each query, (Q, M); -1 is none."""
    return np.asarray(index.search(query_emb_QD, num_named)[1], dtype=np.int64)


def _finite(ranked: Ranked) -> tuple[Int, Int]:
    rows, columns = np.nonzero(np.isfinite(ranked[1]))
    return rows, ranked[0][rows, columns]
