"""Lexical retrieval by BM25, with the library bm25s.

Texts are cut into lower-case words of at least two word characters; English stopwords are left out; nothing is stemmed.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import bm25s
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from anna import log
from anna.params import Params
from anna.teachers.runs import check_size, collections, join_runs, same_text, to_run
from anna.teachers.topk import CHUNK_BYTES, top_k

METHOD = "lucene"
"""Variant of the formula: `idf = log(1 + (N - df + 0.5) / (df + 0.5))`, never negative, times
`tf / (tf + k1 * (1 - b + b * length / mean length))`. Kamphuis et al. 2020, Which BM25 do you mean?"""

TOKEN_PATTERN = r"(?u)\b\w\w+\b"
"""What a word is (scikit-learn's, and bm25s's own choice)."""

STOPWORDS = "english"
"""Lucene's 33 words."""


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
    *,
    k1: float,
    b: float,
    depth: int,
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
        k1: Saturation of term frequency.
        b: Length normalisation.
        depth: Results per query.
        task: Name of the collection, for messages.
        skip_own_text: Whether the document that has the query's own text is never found: in training it would be a
            negative that is none. Where scores are reported it counts, as for every other model.

    Raises:
        InputError: If there are fewer than two documents.
    """
    check_size(task, len(docs))
    order = sorted(range(len(doc_ids)), key=lambda index: doc_ids[index])
    sorted_docs = [docs[index] for index in order]
    excluded_Q = same_text(queries, sorted_docs if skip_own_text else ())
    sorted_ids = np.array([doc_ids[index] for index in order], dtype=object)  # once: a block is few queries
    parts = []
    for start, scores_QN in _score(sorted_docs, queries, k1, b, task):
        own_Q = excluded_Q[start : start + len(scores_QN)]
        rows = np.flatnonzero(own_Q >= 0)
        scores_QN[rows, own_Q[rows]] = 0.0
        scores_QN[scores_QN <= 0] = -np.inf
        ids = query_ids[start : start + len(scores_QN)]
        parts.append(to_run(ids, sorted_ids, *top_k(scores_QN, depth)))
    return join_runs(parts)


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


def _score(
    docs: Sequence[str], queries: Sequence[str], k1: float, b: float, task: str
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the first query and the scores (Q, N) of one block of queries after another, so that memory is bounded."""
    words = tokenize(docs)
    known = set().union(*words)
    index = bm25s.BM25(k1=k1, b=b, method=METHOD, dtype="float64")
    if known:  # a collection of nothing but stopwords has no index and no match
        index.index(words, create_empty_token=False, show_progress=False)
    asked = tokenize(queries)
    step = max(1, CHUNK_BYTES // (16 * len(docs)))
    for start in log.progress(range(0, len(queries), step), unit="block", desc=f"BM25 {task}"):
        block = asked[start : start + step]
        scores_QN = np.zeros((len(block), len(docs)), dtype=np.float32)
        for row, query in enumerate(block):
            matching = [word for word in query if word in known]
            if matching:
                scores_QN[row] = index.get_scores(matching)
        yield start, scores_QN
