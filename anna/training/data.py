"""From the pipeline's tables to training groups and their texts."""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from anna.errors import InputError
from anna.training.batches import Group, Texts


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
    """Return the groups of the validation split, hard negatives beyond the quota added, and so without soft labels."""
    chosen = _split_groups(groups, queries, "validation")
    is_ours = pc.is_in(drops["query_id"], pa.array([group.query_id for group in chosen], pa.string()))
    extra = drops.filter(pc.and_(is_ours, pc.equal(drops["reason"], "beyond_quota")))
    order = [("query_id", "ascending"), ("score", "descending"), ("doc_id", "ascending")]
    beyond: dict[str, list[str]] = {}
    for row in extra.select(["query_id", "doc_id", "score"]).sort_by(order).to_pylist():
        beyond.setdefault(row["query_id"], []).append(row["doc_id"])
    return [
        group._replace(doc_ids=(*group.doc_ids, *beyond.get(group.query_id, ())), soft_labels=()) for group in chosen
    ]


def _split_groups(groups: pa.Table, queries: pa.Table, split: Literal["train", "validation"]) -> list[Group]:
    tasks = {row["query_id"]: row["task"] for row in queries.to_pylist() if row["split"] == split}
    return [
        Group(
            row["query_id"],
            tasks[row["query_id"]],
            (row["positive_id"], *row["negative_ids"]),
            tuple(row["soft_labels"]),
        )
        for row in groups.to_pylist()
        if row["query_id"] in tasks
    ]


def training_texts(
    corpus: pa.Table, queries: pa.Table, qrels: pa.Table, drops: pa.Table, vectors: pa.Table | None = None
) -> Texts:
    """Return all texts by id, positives by query, which tasks are label tasks, and the teacher's vectors.

    Positives are the labelled ones and, in the training split, what the filter has relabelled: validation counts what
    people have judged.
    """
    labelled = qrels.filter(pc.greater(qrels["relevance"], 0)).select(["query_id", "doc_id"])
    trained_on = queries.filter(pc.equal(queries["split"], "train"))["query_id"]
    is_added = pc.and_(pc.equal(drops["reason"], "relabelled"), pc.is_in(drops["query_id"], trained_on))
    relevant = pa.concat_tables(
        [labelled, drops.filter(is_added).select(["query_id", "doc_id"])], promote_options="permissive"
    )
    relevant = relevant.group_by("query_id").aggregate([("doc_id", "list")])
    positives = {row["query_id"]: frozenset(row["doc_id_list"]) for row in relevant.to_pylist()}
    label_tasks = queries.filter(pc.equal(queries["kind"], "classification"))["task"].unique().to_pylist()
    return Texts(
        queries=dict(zip(queries["query_id"].to_pylist(), queries["text"].to_pylist(), strict=True)),
        docs=dict(zip(corpus["doc_id"].to_pylist(), corpus["text"].to_pylist(), strict=True)),
        positives=positives,
        group_only=frozenset(label_tasks),
        vectors={} if vectors is None else _by_id(vectors),
    )


def _by_id(vectors: pa.Table) -> dict[str, NDArray[np.float32]]:
    rows = vectors["vector"].combine_chunks()
    matrix = rows.flatten().to_numpy().reshape(len(rows), -1)
    return dict(zip(vectors["id"].to_pylist(), matrix, strict=True))


def examples_by_task(examples: pa.Table) -> dict[str, list[tuple[str, str]]]:
    """Return each task's in-context examples as (query, response), in the order they are shown."""
    by_task: dict[str, list[tuple[str, str]]] = {}
    for row in examples.to_pylist():
        by_task.setdefault(row["task"], []).append((row["query"], row["response"]))
    return by_task
