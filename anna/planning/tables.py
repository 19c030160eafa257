"""Estimates of the stages that read and write tables alone.

Constants of time and memory that no formula gives are of the default's run on two CPU cores (metrics/cost/), or of the
texts that they name.
"""

from anna.planning.case import Case, Estimate
from anna.planning.counts import BYTES_PER_TOKEN, mean
from anna.planning.memory import LIBRARIES, MIB

INGEST_SECONDS, LABEL_SECONDS = 2.5e-4, 4e-6
"""Of a document and its query in `ingest` (200,000, of 65 words and 8), and of a candidate in `label` and `filter`
(default)."""

INGEST_BYTES = 1700
"""Of a document and its query in `ingest`, beside three copies of the text (200,000)."""

BM25_INDEX_SECONDS, BM25_SECONDS = 8.5e-5, 5.2e-9
"""Of a document, and of a query and a document of its task on one core, in `retrieve_bm25` (a million documents of 40
words, queries of 7)."""

BM25_BYTES = 50
"""Of a token of the largest task's documents in `retrieve_bm25`, which indexes one task at a time (default)."""

DOC_BYTES = 340
"""Of a document, its text not counted, in `label` and `filter`, which number all ids (400,000 documents)."""

TEXT_COPIES = 2
"""Of all documents' texts in `filter` (400,000 documents of 400 characters)."""

READ_BYTES = 35
"""Of a document, its text not counted, in a table of the corpus (500,000 documents)."""

ROW_BYTES = 40
"""Of a row of a run or of labels on disk (default: 8 to 14; ids of larger collections compress worse)."""


def ingest(case: Case) -> Estimate:
    """Return the estimate of `ingest`, fetching not counted."""
    docs = case.counts.docs
    text = _text_bytes(case)
    memory = LIBRARIES["ingest"] + 3 * text + INGEST_BYTES * docs
    return Estimate("ingest", 0, 0, memory, 0.7 * text, 14 + docs * INGEST_SECONDS, f"{docs:,} documents")


def bm25(case: Case) -> Estimate:
    """Return the estimate of `retrieve_bm25`, which compares a query with every document of its task."""
    pairs = sum(float(task.queries) * task.docs for task in case.counts.tasks)
    largest = max(task.docs * mean(task.doc_lengths, 1e9) for task in case.counts.tasks)
    rows = case.counts.queries * case.settings.retrieve_bm25.depth
    memory = LIBRARIES["retrieve_bm25"] + BM25_BYTES * largest
    cores = case.hardware.cores
    seconds = 1 + case.counts.docs * BM25_INDEX_SECONDS + pairs * BM25_SECONDS / cores
    return Estimate("retrieve_bm25", 0, 0, memory, rows * ROW_BYTES, seconds, f"on {cores} CPU cores")


def labels(stage: str, case: Case) -> Estimate:
    """Return the estimate of `label` or `filter`; of the two runs that they read most candidates are distinct."""
    settings = case.settings
    depth = settings.retrieve_bm25.depth + settings.retrieve_dense.depth
    rows = sum(task.queries * min(depth, task.docs) for task in case.counts.tasks) * 0.85
    memory = LIBRARIES["tables"] + _documents(case, copies=TEXT_COPIES if stage == "filter" else 0)
    return Estimate(stage, 0, 0, memory, rows * ROW_BYTES, 0.3 + rows * LABEL_SECONDS)


def report(case: Case) -> Estimate:
    """Return the estimate of `report`, which counts the margins once more as `filter` does."""
    return Estimate("report", 0, 0, LIBRARIES["report"] + _documents(case, copies=TEXT_COPIES), MIB, 3.0)


def read_by_rank(case: Case) -> float:
    """Return the memory of the documents that every rank of training reads, before it keeps those of its groups."""
    return READ_BYTES * case.counts.docs + _text_bytes(case)


def _documents(case: Case, *, copies: int) -> float:
    """Return the memory of all documents' ids and of so many copies of their texts."""
    return DOC_BYTES * case.counts.docs + copies * _text_bytes(case)


def _text_bytes(case: Case) -> float:
    """Return the bytes of all documents' texts."""
    return sum(task.docs * mean(task.doc_lengths, 1e9) for task in case.counts.tasks) * BYTES_PER_TOKEN
