"""Copies of the hub's repositories of mteb's own tasks: each task's own files and columns, a few rows of toy text."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from mteb.abstasks import AbsTaskClassification, AbsTaskClustering, AbsTaskPairClassification, AbsTaskRetrieval
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.text.summarization import AbsTaskSummarization

Rows = list[dict[str, Any]]
Files = dict[str, dict[str, Rows]]
"""Configuration -> split -> rows."""

TOPICS = {
    "animals": "the otter swims|a badger digs|the heron waits|a lynx hunts|the beaver builds|a falcon dives".split("|"),
    "weather": "rain on the coast|snow on the hills|wind in the night|a warm morning|fog at sea|hail fell".split("|"),
}
FLAT = ("BiorxivClusteringP2P.v2",)
"""Clustering tasks whose rows are single texts; a row of the others is a list of texts."""
HIERARCHICAL = ("ArXivHierarchicalClusteringP2P", "ArXivHierarchicalClusteringS2S")
"""mteb draws 2,048 texts of these."""


def write_copy(root: Path, task: AbsTask) -> None:
    """Write the repository of `task` where `ANNA_HUB_DIR=root` is looked at; a repository of several tasks once."""
    folder = root / "datasets" / task.metadata.dataset["path"]
    files = task_files(task)
    for config, splits in files.items():
        for split, rows in splits.items():
            path = folder / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    configs = [
        {"config_name": config, "data_files": [{"split": s, "path": f"{config}/{s}.jsonl"} for s in splits]}
        for config, splits in files.items()
    ]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n", encoding="utf-8")


def task_files(task: AbsTask) -> Files:
    """Return what the repository of `task` holds."""
    name = task.metadata.name
    if isinstance(task, AbsTaskRetrieval):
        return _searched(name, is_reranking=task.metadata.type == "Reranking")
    if isinstance(task, AbsTaskClassification):
        splits = {split: _classes(name, split) for split in ("train", "validation", "test")}
    elif isinstance(task, AbsTaskClustering):
        splits = {"test": _clusters(name)}
    elif isinstance(task, AbsTaskPairClassification):
        splits = {"test": [_columns(_pairs(name), sent1="a", sent2="b", labels="same")]}
    elif isinstance(task, AbsTaskSummarization):
        splits = {"test": _summaries(name)}
    else:
        rows = [{"sentence1": row["a"], "sentence2": row["b"], "score": row["score"]} for row in _pairs(name)]
        texts_of = ("sentence1", "sentence2")
        train = [{**row, **{name: f"once {row[name]}" for name in texts_of}} for row in rows]
        splits = {"train": train, "test": rows}
    if not task.metadata.is_multilingual:
        return {"default": splits}
    if task.fast_loading:  # one configuration with all languages
        langs = (*task.hf_subsets, "xx")
        mixed = {name: [{**row, "lang": lang} for row in rows for lang in langs] for name, rows in splits.items()}
        return {"default": mixed}
    return dict.fromkeys(task.hf_subsets, splits)


def texts(task: str) -> list[tuple[str, str]]:
    """Return the toy texts of a task and their topics."""
    return [(f"{text} ({task})", topic) for topic, group in TOPICS.items() for text in group]


def _searched(task: str, *, is_reranking: bool) -> Files:
    found = texts(task)
    corpus = [{"_id": f"d{i}", "title": topic, "text": text} for i, (text, topic) in enumerate(found)]
    queries = [{"_id": f"q{i}", "text": f"where is {text}"} for i, (text, _) in enumerate(found[:4])]
    qrels = [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(4)]
    files: Files = {"corpus": {"test": corpus}, "queries": {"test": queries}, "default": {"test": qrels}}
    if is_reranking:
        candidates = [{"query-id": f"q{i}", "corpus-ids": [f"d{j}" for j in range(i, i + 5)]} for i in range(4)]
        files["top_ranked"] = {"test": candidates}
    return files


def _classes(task: str, split: str) -> Rows:
    names = sorted(TOPICS)
    return [
        {"text": f"{split}: {text}", "label": names.index(topic), "label_text": topic} for text, topic in texts(task)
    ]


def _clusters(task: str) -> Rows:
    found = [(text, f"{topic}.{number % 2}") for number, (text, topic) in enumerate(texts(task))]
    if task in HIERARCHICAL:
        found = [(f"{text} {number}", topic) for number in range(175) for text, topic in found]
    if task in FLAT:
        # mteb embeds 4 % of the texts.
        return [{"sentences": f"{text} {number}", "labels": topic} for number in range(4) for text, topic in found]
    if task not in HIERARCHICAL:
        found = [(f"{text} {number}", topic) for number in range(8) for text, topic in found]
    halves = found[::2], found[1::2]
    return [{"sentences": [t for t, _ in half], "labels": [topic for _, topic in half]} for half in halves]


def _pairs(task: str) -> Rows:
    found = [text for text, _ in texts(task)]
    return [
        {"a": a, "b": f"we see that {found[(i + i % 3) % 12]}", "score": 4.0 - 1.5 * (i % 3), "same": int(i % 3 == 0)}
        for i, a in enumerate(found)
    ]


def _columns(rows: Sequence[dict[str, Any]], **names: str) -> dict[str, list[Any]]:
    return {column: [row[name] for row in rows] for column, name in names.items()}


def _summaries(task: str) -> Rows:
    found = [text for text, _ in texts(task)]
    return [
        {
            "text": text,
            "human_summaries": [f"in short {text}", f"{text} again"],
            "machine_summaries": [f"so {text}", f"so {other}", f"{text} and {other}"],
            "relevance": [5.0, 1.0, 3.0],
        }
        for text, other in pairwise(found)
    ]


def write_all(root: Path, tasks: Iterable[AbsTask]) -> None:
    """Write the repositories of all `tasks`."""
    for task in tasks:
        write_copy(root, task)
