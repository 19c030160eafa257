"""Lexical retrieval by BM25, with the library bm25s.

Texts are cut into lower-case words of at least two word characters; English stopwords are left out; nothing is stemmed.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import bm25s
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from anna import log
from anna.machine import num_cpus
from anna.params import Params
from anna.segments import Int
from anna.teachers.runs import check_size, collections, join_runs, same_text, to_run
from anna.teachers.topk import Ranked, Scores

METHOD = "lucene"
"""Variant of the formula: `idf = log(1 + (N - df + 0.5) / (df + 0.5))`, never negative, times
`tf / (tf + k1 * (1 - b + b * length / mean length))`. Kamphuis et al. 2020, Which BM25 do you mean?"""

TOKEN_PATTERN = r"(?u)\b\w\w+\b"
"""What a word is (scikit-learn's, and bm25s's own choice)."""

STOPWORDS = "english"
"""Lucene's 33 words."""

QUERIES_AT_ONCE = 64
"""Queries that a thread searches for before it takes the next ones."""

GROUP = 32
"""Documents of a group, of which `best_above_zero` takes the largest score."""

MOST = 0.5
"""Share of a task's queries without a result above which there is a warning."""

_log = logging.getLogger(__name__)


class Bm25Params(Params):
    """The lexical retriever; evaluation uses the same for its baseline."""

    section: ClassVar[str] = "retrieve_bm25"

    k1: float = Field(ge=0)
    """Saturation of term frequency: 0 ignores how often a word occurs."""
    b: float = Field(ge=0, le=1)
    """Length normalisation: 0 none, 1 full."""
    depth: int = Field(gt=0)
    """Candidates kept per query."""


def retrieve(corpus: pa.Table, queries: pa.Table, *, k1: float, b: float, depth: int) -> pa.Table:
    """Return table RUN of every query over the documents of its task.

    Args:
        corpus: Table CORPUS.
        queries: Table QUERIES.
        k1: Saturation of term frequency.
        b: Length normalisation.
        depth: Candidates per query; fewer where fewer documents share a word with the query.

    Raises:
        InputError: If a task has fewer than two documents.
    """
    return join_runs(
        [
            bm25_search(own.doc_ids, own.docs, own.query_ids, own.queries, k1=k1, b=b, depth=depth, task=own.task)
            for own in collections(corpus, queries)
        ]
    )


def bm25_search(
    doc_ids: Sequence[str],
    docs: Sequence[str],
    query_ids: Sequence[str],
    queries: Sequence[str],
    depth: int,
    *,
    k1: float,
    b: float,
    task: str = "collection",
    skip_own_text: bool = True,
) -> pa.Table:
    """Return table RUN of `queries` over one collection.

    Only documents with a score above 0 are found, those that share a word with the query. Ties go to the smaller
    doc_id.

    Args:
        doc_ids: Of the documents, in any order.
        docs: Their texts, distinct.
        query_ids: Of the queries.
        queries: Their texts.
        depth: Results per query.
        k1: Saturation of term frequency.
        b: Length normalisation.
        task: Name of the collection, for messages.
        skip_own_text: Whether to leave out the document that has the query's own text: in training it would be a false
            negative. Where scores are reported it counts, as for every other model.

    Raises:
        InputError: If there are fewer than two documents.
    """
    check_size(task, len(docs))
    order = sorted(range(len(doc_ids)), key=doc_ids.__getitem__)
    sorted_docs = [docs[index] for index in order]
    excluded_Q = same_text(queries, sorted_docs if skip_own_text else ())
    sorted_ids = pa.array([doc_ids[index] for index in order], pa.string())  # made once for all blocks
    index, known = _index(sorted_docs, k1, b)
    asked = [[word for word in query if word in known] for query in tokenize(queries)]
    blocks = [slice(start, start + QUERIES_AT_ONCE) for start in range(0, len(queries), QUERIES_AT_ONCE)]

    def search(block: slice) -> Ranked:
        return _search(index, asked[block], excluded_Q[block], min(depth, len(docs)))

    pool = ThreadPoolExecutor(num_cpus())  # threads, which share the index; NumPy lets them run at once
    try:
        found = log.progress(pool.map(search, blocks), unit="block", desc=f"BM25 {task}", total=len(blocks))
        pairs = zip(blocks, found, strict=True)
        return join_runs([to_run(query_ids[block], sorted_ids, *ranked) for block, ranked in pairs])
    finally:
        pool.shutdown(cancel_futures=True)  # a run that is stopped waits for no block that has not begun


def _index(docs: Sequence[str], k1: float, b: float) -> tuple[bm25s.BM25, set[str]]:
    """Return the index of documents and its words."""
    words = tokenize(docs)
    known = set().union(*words)
    index = bm25s.BM25(k1=k1, b=b, method=METHOD, dtype="float64")
    if known:  # a collection of nothing but stopwords has no index and no match
        index.index(words, create_empty_token=False, show_progress=False)
    return index, known


def _search(index: bm25s.BM25, asked: Sequence[list[str]], excluded_Q: Int, depth: int) -> Ranked:
    """Return the best documents of each query, given as words of the index, (Q, K); -inf where there are fewer."""
    index_QK = np.zeros((len(asked), depth), dtype=np.int64)
    score_QK = np.full(index_QK.shape, -np.inf, dtype=np.float32)
    for row, words in enumerate(asked):
        if not words:
            continue
        scores_N = _scores(index, words).astype(np.float32)
        if excluded_Q[row] >= 0:
            scores_N[excluded_Q[row]] = 0.0
        found_K = best_above_zero(scores_N, depth)
        index_QK[row, : len(found_K)], score_QK[row, : len(found_K)] = found_K, scores_N[found_K]
    return index_QK, score_QK


def _scores(index: bm25s.BM25, words: Sequence[str]) -> NDArray[np.float64]:
    """Return the scores of all documents for words of the index, (N,): `BM25.get_scores`, for many threads.

    The library adds with `np.add.at`, which holds Python's lock. A document stands only once in a word's list, so plain
    addition gives the same.
    """
    scores_N = np.zeros(index.scores["num_docs"])
    docs, parts, bounds = (index.scores[name] for name in ("indices", "data", "indptr"))
    for word in words:
        number = index.vocab_dict[word]
        own = slice(bounds[number], bounds[number + 1])
        scores_N[docs[own]] += parts[own]
    return scores_N


def best_above_zero(scores_N: Scores, k: int) -> Int:
    """Return the positions of the `k` largest scores, or of all above 0, best first; ties go to the first, (K,).

    Where there are many documents, a bound rules most of them out: of the largest score of each group of documents, the
    one in place `k`. At least `k` documents reach it.
    """
    num_groups = len(scores_N) // GROUP
    bound = 0.0
    if num_groups >= k:
        best_of_group = scores_N[: num_groups * GROUP].reshape(GROUP, num_groups).max(axis=0)
        bound = np.partition(best_of_group, num_groups - k)[num_groups - k]
    found_M = np.flatnonzero(scores_N >= bound if bound > 0 else scores_N > 0)
    score_M = scores_N[found_M]
    if len(found_M) > k:
        is_best_M = score_M >= np.partition(score_M, len(score_M) - k)[len(score_M) - k]
        found_M, score_M = found_M[is_best_M], score_M[is_best_M]
    return found_M[np.argsort(-score_M, kind="stable")[:k]]


def warn_of_misses(metrics: Mapping[str, Any]) -> None:
    """Warn of each task for most of whose queries nothing was found; `metrics` as `runs.summarise_run` gives them."""
    for task, counts in metrics["tasks"].items():
        share = counts["queries_without_result"] / counts["queries"]
        if share > MOST:
            _log.warning(
                "task %s: BM25 finds nothing for %.0f %% of its queries, which share no word with any document; a text "
                "in a language without spaces is one word to it. Their candidates come from the dense teacher alone",
                task,
                100 * share,
            )


def tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Return the words of each text that BM25 counts."""
    words: list[list[str]] = bm25s.tokenize(
        list(texts),
        lower=True,
        token_pattern=TOKEN_PATTERN,
        stopwords=STOPWORDS,
        return_ids=False,
        show_progress=False,
    )
    return words
