"""From the pipeline's tables to training groups and their texts."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from anna import schemas
from anna.errors import InputError
from anna.training.batches import Group, Texts

_TOO_CLOSE = ("above_positive", "inside_margin", "duplicate_of_positive")
"""Reasons of the filter by which a document is no negative of a query, labelled or not."""


def needed_drops(parts: Iterable[pa.Table], groups: pa.Table, queries: pa.Table) -> pa.Table:
    """Return the rows of table DROPS that training may read: most candidates of most queries are in no group at all.

    Args:
        parts: Of table DROPS, of which no more than one is in memory, and that on every rank.
        groups: Table GROUPS.
        queries: Table QUERIES.
    """
    validated = queries.filter(pc.equal(queries["split"], "validation"))["query_id"]
    members = (pc.list_flatten(groups[name]).chunks for name in ("positive_ids", "negative_ids"))
    grouped = pc.unique(pa.chunked_array(chain(*members), pa.string()))

    def needed(part: pa.Table) -> pa.Table:
        is_extra = pc.and_(pc.equal(part["reason"], "beyond_quota"), pc.is_in(part["query_id"], validated))
        is_close = pc.and_(pc.is_in(part["reason"], pa.array(_TOO_CLOSE)), pc.is_in(part["doc_id"], grouped))
        return part.filter(pc.or_(pc.equal(part["reason"], "relabelled"), pc.or_(is_extra, is_close)))

    return pa.concat_tables([schemas.DROPS.empty_table(), *map(needed, parts)])


def kinds(queries: pa.Table) -> dict[str, str]:
    """Return the kind of each task of table QUERIES."""
    found = queries.select(["task", "kind"]).group_by(["task", "kind"]).aggregate([]).sort_by("task")
    return dict(zip(found["task"].to_pylist(), found["kind"].to_pylist(), strict=True))


def training_groups(groups: pa.Table, queries: pa.Table) -> list[Group]:
    """Return the groups of the training split.

    Raises:
        InputError: If there is none.
    """
    chosen = _split_groups(groups, queries, "train")
    if not chosen:
        raise InputError(
            f"data/groups.parquet has no group of the training split ({groups.num_rows} groups in all); "
            "loosen filter.margin or take more ingest rows"
        )
    return chosen


def validation_groups(groups: pa.Table, drops: pa.Table, queries: pa.Table) -> list[Group]:
    """Return the groups of the validation split, hard negatives beyond the quota added, and so without soft labels.

    Of several positives they have the best: validation takes the others from the qrels.
    """
    chosen = _split_groups(groups, queries, "validation")
    is_ours = pc.is_in(drops["query_id"], pa.array([group.query_id for group in chosen], pa.string()))
    extra = drops.filter(pc.and_(is_ours, pc.equal(drops["reason"], "beyond_quota")))
    order = [("query_id", "ascending"), ("score", "descending"), ("doc_id", "ascending")]
    beyond: dict[str, list[str]] = {}
    for row in extra.select(["query_id", "doc_id", "score"]).sort_by(order).to_pylist():
        beyond.setdefault(row["query_id"], []).append(row["doc_id"])
    return [
        Group(
            group.query_id,
            group.task,
            (group.doc_ids[0], *group.doc_ids[group.num_positives :], *beyond.get(group.query_id, ())),
            soft_labels=(),
        )
        for group in chosen
    ]


def _split_groups(groups: pa.Table, queries: pa.Table, split: Literal["train", "validation"]) -> list[Group]:
    chosen = queries.filter(pc.equal(queries["split"], split))
    tasks = dict(zip(chosen["query_id"].to_pylist(), chosen["task"].to_pylist(), strict=True))
    own = groups.filter(pc.is_in(groups["query_id"], chosen["query_id"]))
    # Column by column: a dictionary for every row takes twice as long, and memory for all of them.
    columns = (own[name].to_pylist() for name in ("query_id", "positive_ids", "negative_ids", "soft_labels"))
    return [
        Group(query_id, tasks[query_id], (*positive_ids, *negative_ids), tuple(soft_labels), len(positive_ids))
        for query_id, positive_ids, negative_ids, soft_labels in zip(*columns, strict=True)
    ]


def training_texts(
    groups: Sequence[Group],
    *,
    corpus: pa.Table,
    queries: pa.Table,
    qrels: pa.Table,
    drops: pa.Table,
    vectors: Iterable[pa.Table] = (),
) -> Texts:
    """Return what `groups` name: texts, classes, positives of their queries and the teacher's vectors.

    Positives are the labelled ones and, in the training split, what the filter has relabelled: validation counts what
    people have judged. What the filter found too close to a positive is to be no negative in a batch either.

    Args:
        groups: Of both splits. What they do not name stays out of memory: a corpus is larger than what it trains.
        corpus: Table CORPUS.
        queries: Table QUERIES.
        qrels: Table QRELS.
        drops: Table DROPS, or what `needed_drops` leaves of it.
        vectors: Table VECTORS in parts; none where no term of the loss asks for it.
    """
    query_ids = pa.array(sorted({group.query_id for group in groups}), pa.string())
    queries_asked = queries.filter(pc.is_in(queries["query_id"], query_ids))
    trained_on = queries_asked.filter(pc.equal(queries_asked["split"], "train"))["query_id"]
    dropped = drops.filter(pc.is_in(drops["query_id"], trained_on))
    is_labelled = pc.and_(pc.greater(qrels["relevance"], 0), pc.is_in(qrels["query_id"], query_ids))
    relabelled = dropped.filter(pc.equal(dropped["reason"], "relabelled"))
    positives = _docs_by_query(qrels.filter(is_labelled), relabelled)
    in_batches = frozenset(trained_on.to_pylist())
    met = {doc_id for group in groups if group.query_id in in_batches for doc_id in group.doc_ids}
    is_too_close = pc.is_in(dropped["reason"], pa.array(_TOO_CLOSE))
    is_met = pc.is_in(dropped["doc_id"], pa.array(sorted(met), pa.string()))
    named = {doc_id for group in groups for doc_id in group.doc_ids}.union(*positives.values())
    docs = corpus.filter(pc.is_in(corpus["doc_id"], pa.array(sorted(named), pa.string())))
    return Texts(
        queries=_column_by_id(queries_asked, "query_id", "text"),
        docs=_column_by_id(docs, "doc_id", "text"),
        positives=positives,
        spared=_docs_by_query(dropped.filter(pc.and_(is_too_close, is_met))),
        labels=_column_by_id(queries_asked, "query_id", "label") | _column_by_id(docs, "doc_id", "label"),
        vectors=_by_id(vectors, pa.concat_arrays([query_ids, pa.array(sorted(named), pa.string())])),
    )


def _docs_by_query(*tables: pa.Table) -> dict[str, frozenset[str]]:
    pairs = pa.concat_tables([table.select(["query_id", "doc_id"]) for table in tables], promote_options="permissive")
    listed = pairs.group_by("query_id").aggregate([("doc_id", "list")])
    return {row["query_id"]: frozenset(row["doc_id_list"]) for row in listed.to_pylist()}


def _column_by_id(table: pa.Table, id_name: str, name: str) -> dict[str, str]:
    """Return a column's values by id, without nulls."""
    known = table.filter(pc.is_valid(table[name]))
    return dict(zip(known[id_name].to_pylist(), known[name].to_pylist(), strict=True))


def _by_id(vectors: Iterable[pa.Table], ids: pa.Array) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for part in vectors:
        chosen = part.filter(pc.is_in(part["id"], ids))
        if chosen.num_rows:
            matrix = chosen["vector"].combine_chunks().flatten().to_numpy().reshape(chosen.num_rows, -1)
            found.update(zip(chosen["id"].to_pylist(), matrix, strict=True))
    return found


def examples_by_task(examples: pa.Table) -> dict[str, list[tuple[str, str]]]:
    """Return each task's in-context examples as (query, response), in the order they are shown."""
    by_task: dict[str, list[tuple[str, str]]] = {}
    for row in examples.to_pylist():
        by_task.setdefault(row["task"], []).append((row["query"], row["response"]))
    return by_task
