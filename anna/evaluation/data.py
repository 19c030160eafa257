"""The data of mteb's own tasks: from the hub or the folder that stands in for it, and the texts that they score."""

from collections.abc import Iterator
from typing import Any

import datasets
import mteb
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.abstask import AbsTask

from anna.errors import InputError, one_line
from anna.origins import HUB_DIR_VARIABLE, copy_cache, hub_mirror


def load_data(task: AbsTask) -> None:
    """Load the data of `task`, unless it is there already; of the hub's repository, or of a copy of it on this machine.

    mteb's own loader reads either: a copy has the repository's files (README.md with its configurations, Parquet or
    JSON Lines), in `datasets/<repo>` of the folder that `anna.origins.HUB_DIR_VARIABLE` names.

    Raises:
        InputError: If the data cannot be had or are not as the task expects them.
    """
    if task.data_loaded:
        return
    repo = task.metadata.dataset["path"]
    mirror = hub_mirror("datasets", repo)
    own, cache = vars(task).get("metadata"), datasets.config.HF_DATASETS_CACHE
    try:
        if mirror is not None:
            local = {**task.metadata.dataset, "path": str(mirror.resolve())}
            task.metadata = task.metadata.model_copy(update={"dataset": local})
            datasets.config.HF_DATASETS_CACHE = copy_cache(mirror)  # mteb's loaders take no other
        task.load_data()
    except Exception as error:  # the hub client raises a score of types; each means the same to the user
        raise InputError(
            f"data of mteb task {task.metadata.name!r} did not arrive from {mirror or 'the hub'} ({one_line(error)}); "
            f"check the network, put a copy of the repository at ${HUB_DIR_VARIABLE}/datasets/{repo}, or set "
            "evaluate.benchmark: held_out"
        ) from None
    finally:
        datasets.config.HF_DATASETS_CACHE = cache
        # Results name the repository and its revision, wherever the data came from.
        vars(task).pop("metadata", None)
        if own is not None:
            task.metadata = own


def english_task(name: str) -> AbsTask:
    """Return mteb's own task of this name, its English part alone; an unknown one is an InputError."""
    try:
        return mteb.get_task(name, languages=["eng"], exclusive_language_filter=True)
    except KeyError:
        raise InputError(f"ingest.examples: mteb has no task {name!r}; correct the name, or drop the entry") from None


def scored_texts(task: AbsTask) -> set[str]:
    """Return the texts that `task` scores: queries and the documents relevant to them, or all strings of its test rows.

    What a classifier is fitted on is not among them. The data are loaded, and dropped where they were not there before.
    """
    was_loaded = task.data_loaded
    load_data(task)
    parts = [task.dataset[name] for name in task.hf_subsets if name in task.dataset] or [task.dataset]
    texts: set[str] = set()
    for split in task.eval_splits:
        for part in parts:
            texts.update(_judged(part[split]) if isinstance(task, AbsTaskRetrieval) else _strings(part[split][:]))
    if not was_loaded:
        task.unload_data()
    return texts


def _judged(split: Any) -> Iterator[str]:
    relevant = {key for judged in split["relevant_docs"].values() for key, value in judged.items() if value > 0}
    yield from split["queries"]["text"]
    corpus = split["corpus"]
    titles = corpus["title"] if "title" in corpus.column_names else [None] * len(corpus)
    for key, title, text in zip(corpus["id"], titles, corpus["text"], strict=True):
        if key in relevant:
            yield text
            if title:  # other data sets hold the two as one text
                yield f"{title} {text}"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
