"""Dense retrieval within each task: every document is compared, or in large collections those that an index names."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from anna import io, schemas
from anna.engine import Engine
from anna.errors import InputError
from anna.segments import Int
from anna.teachers import ivfpq
from anna.teachers.dense import DenseTeacher, IndexParams
from anna.teachers.runs import collections, join_runs, same_text, to_run
from anna.teachers.topk import Ranked, Scores, merge, nearest_of_block, numbered
from anna.teachers.vectors import VectorFile

WORK_DIR = Path("runs/work")
"""Folder of the vectors of the collection that is being searched."""

_log = logging.getLogger(__name__)


class Retrieved(NamedTuple):
    """What the dense teacher found."""

    run: pa.Table
    """Table RUN."""
    vectors: Iterator[pa.Table]
    """Table VECTORS of all documents and queries, in parts."""
    recalls: dict[str, float]
    """By task that was searched by index: the share of the exact results that was found."""


def retrieve(corpus: pa.Table, queries: pa.Table, teacher: DenseTeacher) -> Retrieved:
    """Return what the dense teacher finds for every query among the documents of its task, by cosine.

    Args:
        corpus: Table CORPUS.
        queries: Table QUERIES.
        teacher: What gives the vectors. Its params say how many candidates a query gets (fewer where the task has
            fewer documents), and how large collections are searched.

    Raises:
        InputError: If a task has fewer than two documents, the model does not load, or an index finds too little.
    """
    where, params = teacher.engine, teacher.params
    if where.wants_all:
        teacher.fill(
            (prompt, text)
            for own in collections(corpus, queries)
            for prompt, texts in ((params.doc_prompt, own.docs), (params.query_prompt, own.queries))
            for text in texts
        )
    runs, recalls, ids, matrices = [], {}, [], []
    for own in collections(corpus, queries):
        docs = VectorFile(len(own.docs), teacher.encode(own.docs, params.doc_prompt), WORK_DIR)
        asked = VectorFile(len(own.queries), teacher.encode(own.queries, params.query_prompt), WORK_DIR)
        excluded = same_text(own.queries, own.docs)
        if len(docs) < params.index.min_docs:
            found = search_exactly(asked, docs, params.depth, excluded, where)
        else:
            found, recalls[own.task] = search_by_index(
                own.task, asked, docs, depth=params.depth, excluded_Q=excluded, params=params.index, where=where
            )
        runs.append(to_run(own.query_ids, own.doc_ids, *found))
        ids += [own.doc_ids, own.query_ids]
        matrices += [docs, asked]
    return Retrieved(join_runs(runs), vector_tables(ids, matrices), recalls)


def vector_tables(ids: Sequence[Sequence[str]], matrices: Sequence[VectorFile]) -> Iterator[pa.Table]:
    """Yield table VECTORS of the rows of all matrices, in order of their ids, in parts.

    Args:
        ids: Of the rows of each matrix.
        matrices: All with the same number of columns.
    """
    kind, num_dims = schemas.VECTORS.field("vector").type, matrices[0].shape[1]
    owners = np.repeat(np.arange(len(ids)), [len(own) for own in ids])
    rows = np.concatenate([np.arange(len(own)) for own in ids])
    names = np.asarray([name for own in ids for name in own], dtype=object)
    order = np.argsort(names)
    for start in range(0, len(order), io.ROW_GROUP_SIZE):
        part = order[start : start + io.ROW_GROUP_SIZE]
        vectors_ND = np.empty((len(part), num_dims), dtype=np.float32)
        for owner in np.unique(owners[part]):
            is_own = owners[part] == owner
            vectors_ND[is_own] = matrices[owner].take(rows[part][is_own])
        offsets = pa.array(np.arange(len(part) + 1) * num_dims, pa.int32())
        lists = pa.ListArray.from_arrays(offsets, pa.array(vectors_ND.ravel()), type=kind)
        yield pa.table({"id": pa.array(names[part], pa.string()), "vector": lists})


def search_exactly(asked: VectorFile, docs: VectorFile, depth: int, excluded_Q: Int, where: Engine) -> Ranked:
    """Return the best `depth` documents of every query, every document compared, a block of documents at a time."""

    def search(query_emb_QD: Scores, own_Q: Int) -> Ranked:
        return merge(where.map(nearest_of_block, numbered(docs.blocks()), query_emb_QD, depth, own_Q), depth)

    return _by_block(asked, excluded_Q, search)


def search_by_index(
    task: str,
    asked: VectorFile,
    docs: VectorFile,
    *,
    depth: int,
    excluded_Q: Int,
    params: IndexParams,
    where: Engine,
) -> tuple[Ranked, float]:
    """Return the best `depth` documents of every query that an index finds, and its recall on a sample of the queries.

    Raises:
        InputError: If the recall is below `params.min_recall`.
    """
    index = ivfpq.build(docs, nlist=params.nlist, m=params.m, nprobe=params.nprobe, where=where)

    def search(query_emb_QD: Scores, own_Q: Int) -> Ranked:
        return ivfpq.search(
            index, query_emb_QD, docs, k=depth, num_rescored=params.rescore, excluded_Q=own_Q, where=where
        )

    sample = np.linspace(0, len(asked) - 1, min(params.sample, len(asked))).astype(np.int64)
    few_emb_QD, few_excluded_Q = asked.take(sample), excluded_Q[sample]
    exact = merge(where.map(nearest_of_block, numbered(docs.blocks()), few_emb_QD, depth, few_excluded_Q), depth)
    recall = ivfpq.recall(search(few_emb_QD, few_excluded_Q), exact)
    _log.info("task %s: the index finds %.4f of the exact results", task, recall)
    if recall < params.min_recall:
        raise InputError(
            f"task {task!r}: the index finds {recall:.4f} of the best {depth} documents, {ivfpq.PLACE}.min_recall is "
            f"{params.min_recall}; raise {ivfpq.PLACE}.nprobe, .rescore or .m"
        )
    return _by_block(asked, excluded_Q, search), recall


def _by_block(asked: VectorFile, excluded_Q: Int, search: Callable[[Scores, Int], Ranked]) -> Ranked:
    found, start = [], 0
    for query_emb_QD in asked.blocks():
        found.append(search(query_emb_QD, excluded_Q[start : start + len(query_emb_QD)]))
        start += len(query_emb_QD)
    index, score = zip(*found, strict=True)
    return np.concatenate(index), np.concatenate(score)
