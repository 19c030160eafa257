"""The tasks to score: the held-out tables as tasks of mteb's own classes, or one of mteb's benchmarks by name."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mteb
import polars as pl
import pyarrow as pa
from datasets import Dataset
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from anna import io, schemas
from anna.errors import InputError
from anna.params import HELD_OUT, did_you_mean

_SPLIT = "test"


EvalTables = Mapping[str, pa.Table]
"""The held-out tables by name, all of `schemas.EVAL_TABLES`."""


def read_tables(paths: Mapping[str, Path]) -> EvalTables:
    """Return the held-out tables at `paths`."""
    return {name: io.read(path, schemas.EVAL_TABLES[name]) for name, path in paths.items()}


def select_tasks(benchmark: str, names: Sequence[str] | None, read: Callable[[], EvalTables]) -> list[AbsTask]:
    """Return the tasks of `benchmark`, all of them or those named.

    Args:
        benchmark: `held_out`, or the name of one of mteb's benchmarks.
        names: Tasks to keep, or None for all.
        read: Called for `held_out` alone.

    Raises:
        InputError: If the benchmark or a task is unknown, a task is not of texts or a mean of others, or a table breaks
            what its task type needs.
    """
    if benchmark == HELD_OUT:
        return _named(held_out_tasks(read()), benchmark, names)
    return benchmark_tasks(benchmark, names)


def benchmark_tasks(benchmark: str, names: Sequence[str] | None) -> list[AbsTask]:
    """Return the tasks of one of mteb's benchmarks, all of them or those named.

    Raises:
        InputError: If the benchmark or a task is unknown, or a task is not of texts or a mean of others.
    """
    known = [each.name for each in mteb.get_benchmarks()]
    if benchmark not in known:
        close = did_you_mean(benchmark, [HELD_OUT, *known], most=3)
        raise InputError(
            f"evaluate.benchmark: {benchmark!r} is neither {HELD_OUT!r} nor one of mteb's benchmarks{close}; correct it"
        )
    tasks = _named(list(mteb.get_benchmark(benchmark).tasks), benchmark, names)
    _check_scorable(benchmark, tasks)
    return tasks


def _named(tasks: list[AbsTask], benchmark: str, names: Sequence[str] | None) -> list[AbsTask]:
    if names is None:
        return tasks
    known = {task.metadata.name: task for task in tasks}
    for name in names:
        if name not in known:
            close = did_you_mean(name, list(known), most=3)
            raise InputError(f"evaluate.tasks: {name!r} is no task of {benchmark!r}{close}; it has {sorted(known)}")
    return [task for name, task in known.items() if name in names]


def held_out_tasks(tables: EvalTables) -> list[AbsTask]:
    """Return one mteb task per held-out task, in order of name.

    Which class a task becomes follows from its rows: judged documents, of which some are irrelevant, make a reranking
    task (its candidates are what is judged) and otherwise retrieval; pair scores that are all 0 or 1 make pair
    classification and otherwise STS; labelled texts with a train split make classification and otherwise clustering.

    Raises:
        InputError: If a task stands in two tables, or its rows cannot make up a task.
    """
    makers = (
        (("qrels", "corpus", "queries"), _search_task),
        (("pairs",), _pair_task),
        (("labelled",), _labelled_task),
        (("summaries",), _summarization_task),
    )
    tasks: dict[str, AbsTask] = {}
    for fields, make in makers:
        frames = [pl.DataFrame(tables[field]) for field in fields]
        for name in frames[0]["task"].unique().sort():
            if name in tasks:
                raise InputError(f"held-out task {name!r} has rows of two types; give one of them another name")
            own = [frame.filter(pl.col("task") == name) for frame in frames]
            tasks[name] = make(name, *own)
    if not tasks:
        raise InputError("the held-out tables are empty; declare ingest.held_out in params.yaml and run: dvc repro")
    return [tasks[name] for name in sorted(tasks)]


def _search_task(name: str, qrels: pl.DataFrame, corpus: pl.DataFrame, queries: pl.DataFrame) -> AbsTask:
    judged: dict[str, dict[str, int]] = {}
    for query_id, doc_id, relevance in qrels.select("query_id", "doc_id", "relevance").iter_rows():
        judged.setdefault(query_id, {})[doc_id] = relevance
    _check_references(name, judged, set(queries["query_id"]), set(corpus["doc_id"]))
    is_reranking = qrels["relevance"].min() == 0
    split = RetrievalSplitData(
        corpus=Dataset.from_dict({"id": corpus["doc_id"].to_list(), "text": corpus["text"].to_list()}),
        queries=Dataset.from_dict({"id": queries["query_id"].to_list(), "text": queries["text"].to_list()}),
        relevant_docs=judged,
        top_ranked={query_id: list(docs) for query_id, docs in judged.items()} if is_reranking else None,
    )
    kind, metric = ("Reranking", "map_at_1000") if is_reranking else ("Retrieval", "ndcg_at_10")
    metadata = _metadata(name, kind, "t2t", metric, qrels, corpus, queries)
    return _loaded(AbsTaskRetrieval, metadata, {"default": {_SPLIT: split}})


def _check_references(name: str, judged: dict[str, dict[str, int]], query_ids: set[str], doc_ids: set[str]) -> None:
    for query_id, docs in judged.items():
        missing = sorted(set(docs) - doc_ids)
        if query_id not in query_ids or missing:
            what = f"documents {missing[:3]}" if missing else f"query {query_id!r}"
            raise InputError(f"held-out task {name!r}: qrels name {what}, which is in no table; run: dvc repro ingest")
        if not any(relevance > 0 for relevance in docs.values()):
            raise InputError(f"held-out task {name!r}: query {query_id!r} has no relevant document; correct its source")
    unjudged = sorted(query_ids - set(judged))
    if unjudged:
        raise InputError(f"held-out task {name!r}: queries {unjudged[:3]} have no qrels; run: dvc repro ingest")


def _pair_task(name: str, pairs: pl.DataFrame) -> AbsTask:
    texts = {"sentence1": pairs["text1"].to_list(), "sentence2": pairs["text2"].to_list()}
    scores = pairs["score"].to_list()
    if pairs["score"].n_unique() < 2:
        raise InputError(f"held-out task {name!r}: all {len(pairs)} pairs have score {scores[0]}; correct its source")
    if set(scores) <= {0.0, 1.0}:
        data = {_SPLIT: Dataset.from_dict({**texts, "labels": [int(score) for score in scores]})}
        return _loaded(AbsTaskPairClassification, _metadata(name, "PairClassification", "t2t", "max_ap", pairs), data)
    metadata = _metadata(name, "STS", "t2t", "cosine_spearman", pairs)
    return _loaded(AbsTaskSTS, metadata, {_SPLIT: Dataset.from_dict({**texts, "score": scores})})


def _labelled_task(name: str, labelled: pl.DataFrame) -> AbsTask:
    splits = {split: labelled.filter(pl.col("split") == split) for split in ("test", "train")}
    if splits["test"]["label"].n_unique() < 2:
        raise InputError(f"held-out task {name!r}: the test rows have fewer than two classes; correct its source")
    if not len(splits["train"]):
        test = splits["test"]
        data = {_SPLIT: Dataset.from_dict({"sentences": test["text"].to_list(), "labels": test["label"].to_list()})}
        metadata = _metadata(name, "Clustering", "t2c", "v_measure", labelled)
        # mteb's defaults, 4 % of the texts and samples of 16,384, suit its large tasks only.
        sizes = {"max_fraction_of_documents_to_embed": None, "max_documents_per_cluster": len(test)}
        return _loaded(AbsTaskClustering, metadata, data, **sizes)
    unseen = set(splits["test"]["label"]) - set(splits["train"]["label"])
    if unseen:
        raise InputError(f"held-out task {name!r}: no train row of classes {sorted(unseen)[:3]}; raise train_rows")
    number = {label: index for index, label in enumerate(sorted(set(labelled["label"])))}
    data = {
        split: Dataset.from_dict({"text": rows["text"].to_list(), "label": [number[v] for v in rows["label"]]})
        for split, rows in splits.items()
    }
    return _loaded(AbsTaskClassification, _metadata(name, "Classification", "t2c", "accuracy", labelled), data)


def _summarization_task(name: str, summaries: pl.DataFrame) -> AbsTask:
    if not any(len(set(relevance)) > 1 for relevance in summaries["relevance"].to_list()):
        raise InputError(f"held-out task {name!r}: no text has summaries of different relevance; correct its source")
    columns = {
        "text": summaries["source"].to_list(),
        "human_summaries": [[source] for source in summaries["source"]],
        "machine_summaries": summaries["summaries"].to_list(),
        "relevance": summaries["relevance"].to_list(),
    }
    metadata = _metadata(name, "Summarization", "t2t", "cosine_spearman", summaries)
    return _loaded(AbsTaskSummarization, metadata, {_SPLIT: Dataset.from_dict(columns)}, min_score=0, max_score=1)


def _metadata(name: str, kind: Any, category: Any, metric: str, *rows: pl.DataFrame) -> TaskMetadata:
    """Return the task's metadata; the revision is a hash of its rows, so that no result outlives its data."""
    return TaskMetadata(
        name=name,
        description=f"{kind} on the held-out rows of {name}; source and licence stand in params.yaml, ingest.held_out.",
        dataset={"path": f"data/eval/{name}", "revision": _content_hash(*rows)},
        type=kind,
        category=category,
        modalities=["text"],
        eval_splits=[_SPLIT],
        eval_langs=["eng-Latn"],
        main_score=metric,
    )


def _content_hash(*frames: pl.DataFrame) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for frame in frames:
        digest.update(frame.write_json().encode())
    return digest.hexdigest()


def _loaded(base: type[AbsTask], metadata: TaskMetadata, dataset: Any, **settings: Any) -> AbsTask:
    """Return a task of class `base` that holds its data already, so that mteb never looks for it on the hub."""
    task = type(f"HeldOut{metadata.name}", (base,), {"metadata": metadata, **settings})()
    task.dataset = dataset
    task.data_loaded = True
    return task


def _check_scorable(benchmark: str, tasks: Sequence[AbsTask]) -> None:
    """Refuse what a text encoder has no vectors for, and mteb's means over other tasks, which have no data."""
    other = sorted(task.metadata.name for task in tasks if set(task.metadata.modalities) != {"text"})
    means = sorted(task.metadata.name for task in tasks if task.is_aggregate)
    if other or means:
        raise InputError(
            f"evaluate.benchmark: of {benchmark!r} these cannot be scored: {', '.join([*other, *means])} (not of texts "
            "alone, or means over other tasks); name the others in evaluate.tasks"
        )
