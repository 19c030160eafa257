"""All of ingestion: sources in, held-out tasks and training collections out."""

import logging
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from anna import log
from anna.corpus.collection import Collection, Pair, build_collection, make_pairs
from anna.corpus.decontaminate import HeldOutTexts
from anna.corpus.drops import DropLog, remedies, remedy
from anna.corpus.held_out import HeldOutTask, held_out_texts, load_task
from anna.corpus.rows import load_distractors, load_rows, sample
from anna.corpus.sources import Cleaning, HeldOutSource, TrainSource
from anna.corpus.units import SEARCHED
from anna.errors import InputError
from anna.origins import describe
from anna.seeding import derive_seed

MIN_DOCS = 2
"""A collection of one document has no negative."""

MIN_CLASSES = 2
"""In a task of one class no text has a negative."""

CONTAMINATED = 0.25
"""We warn if more than this share of a training task holds held-out texts."""

NEAR_DUPLICATE = 0.1
"""We warn if more than this share of a task's documents became another: of a catalogue or of forms nearly all do."""

_log = logging.getLogger(__name__)


def check_prompts(tasks: Iterable[str], prompts: Container[str]) -> None:
    """Refuse tasks without a prompt at once: `train` would do so too, but after the teachers have run.

    Raises:
        InputError: If there is any; it names all.
    """
    missing = sorted({task for task in tasks if task not in prompts})
    if missing:
        raise InputError(f"prompts.tasks has no instruction for {missing}, tasks of ingest; add one for each there")


def check_sources(
    train: Sequence[TrainSource], held_out: Sequence[HeldOutSource], examples: Sequence[TrainSource]
) -> None:
    """Refuse sources that cannot stand together, before any is read.

    Raises:
        InputError: If two held-out tasks have one name, sources of one training task are of different kinds, two
            sources of examples have one task, or examples are of a held-out task, which sets its own aside.
    """
    names = [source.task for source in held_out]
    kinds: dict[str, str] = {}
    shown: set[str] = set()
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"ingest.held_out has two tasks named {name!r}; rename one")
    for source in train:
        kind = kinds.setdefault(source.task, source.kind)
        if kind != source.kind:
            raise InputError(f"ingest.train: task {source.task!r} is both {kind} and {source.kind}; rename one")
    for source in examples:
        if source.task in shown:
            raise InputError(f"ingest.examples has two sources of task {source.task!r}; leave one out")
        if source.task in names:
            raise InputError(
                f"ingest.examples names {source.task!r}, a held-out task, which sets its own examples aside; leave it "
                "out there"
            )
        shown.add(source.task)


def load_held_out(
    sources: Sequence[HeldOutSource], drops: DropLog, cleaning: Cleaning, *, num_examples: int
) -> list[HeldOutTask]:
    """Return the held-out tasks, whose names differ; see `load_task` for arguments and errors."""
    tasks: list[HeldOutTask] = []
    for source in log.progress(sources, unit="held-out tasks", desc="ingest"):
        task = load_task(source, drops, cleaning, num_examples=num_examples)
        dropped = drops.by_reason(source.task, "held_out")
        _log.info(
            "%s (%s) from %s: %s, dropped %s",
            source.task,
            source.type,
            describe(source.origin),
            _scored(task),
            dropped,
        )
        _warn_of_near_duplicates(f"held-out task {source.task}", len(task.docs), dropped)
        tasks.append(task)
    return tasks


def load_training(
    sources: Sequence[TrainSource], held_out: Sequence[HeldOutTask], drops: DropLog, cleaning: Cleaning
) -> list[Collection]:
    """Return one collection per training task, without any text of `held_out`.

    Sources of one task, which are of one kind, make one collection. Memory holds the rows of one task at a time. See
    `load_rows` and `build_collection` for arguments and errors.

    Raises:
        InputError: If a task is left with fewer than two documents or no query that has a positive.
    """
    texts = HeldOutTexts(held_out_texts(held_out), cleaning.near_duplicate)
    by_task: defaultdict[str, list[TrainSource]] = defaultdict(list)
    for source in sources:
        by_task[source.task].append(source)
    return [
        _load_collection(own, texts, drops, cleaning)
        for own in log.progress(by_task.values(), unit="training tasks", desc="ingest")
    ]


def _load_collection(
    sources: Sequence[TrainSource], held_out: HeldOutTexts, drops: DropLog, cleaning: Cleaning
) -> Collection:
    """Return the collection of the sources of one task."""
    task, pairs, distractors = sources[0].task, list[Pair](), list[str]()
    max_faulty_share, near_duplicate, seed = cleaning
    drop = drops.of(task, "train")
    for source in sources:
        read = load_rows(source, drop, task=task, max_faulty_share=max_faulty_share)
        rows = sample(read, source.rows, drop, seed=derive_seed(seed, "train", task))
        pairs += make_pairs(source, rows, drop)
        distractors += (doc for row in rows for doc in row.texts("unjudged"))
        distractors += load_distractors(
            source, drop, max_faulty_share=max_faulty_share, seed=derive_seed(seed, "train")
        )
    collection = build_collection(
        task,
        sources[0].kind,
        pairs,
        held_out,
        drop,
        distractors=distractors,
        near_duplicate=near_duplicate,
        seed=derive_seed(seed, "positives", task),
    )
    dropped = drops.by_reason(task, "train")
    _check(collection, dropped)
    _log.info("%s: %s, dropped %s", task, _counts(collection), dropped)
    _warn_of_contamination(task, len(pairs) + len(distractors), dropped)
    _warn_of_near_duplicates(task, len(collection.docs), dropped)
    return collection


def _check(collection: Collection, dropped: dict[str, int]) -> None:
    if len(collection.docs) < MIN_DOCS or not collection.queries:
        lower = ("lower its positive_at",) if collection.kind == "sts" else ()
        raise InputError(
            f"training task {collection.task!r} is left with {len(collection.docs)} documents and "
            f"{len(collection.queries)} queries that have a positive, expected {MIN_DOCS} and 1 or more; dropped: "
            f"{dropped}; {remedy(dropped, *lower)}"
        )
    classes = set(collection.labels.values())
    if collection.kind == "classification" and len(classes) < MIN_CLASSES:
        raise InputError(
            f"training task {collection.task!r}: its texts are all of class {min(classes)!r}, so none has a negative; "
            "correct its label column, or where and unless, in params.yaml"
        )


def _warn_of_contamination(task: str, read: int, dropped: Mapping[str, int]) -> None:
    """Warn if a held-out task is scored on much of a training task: probably the two have a source in common."""
    own = {reason: dropped[reason] for reason in ("contaminated", "near_contaminated") if reason in dropped}
    contaminated = sum(own.values())
    if contaminated > CONTAMINATED * read:
        _log.warning(
            "%s: %d of %d pairs and distractors hold a text that a held-out task is scored on, or a near duplicate of "
            "one, and are left out; %s",
            task,
            contaminated,
            read,
            ", ".join(remedies(own)),
        )


def _warn_of_near_duplicates(name: str, left: int, dropped: Mapping[str, int]) -> None:
    """Warn if one document stands for many: where all are made by one template, they are near duplicates."""
    merged = dropped.get("near_duplicate_document", 0)
    if merged > NEAR_DUPLICATE * (left + merged):
        _log.warning(
            "%s: %d of %d documents are near duplicates of others, which stand in their place, also as positives; if "
            "they should be told apart, raise ingest.near_duplicate in params.yaml (null keeps all that differ)",
            name,
            merged,
            left + merged,
        )


def summarise(collections: Sequence[Collection], held_out: Sequence[HeldOutTask], drops: DropLog) -> dict[str, Any]:
    """Return the metrics of ingestion: sizes and drops by reason, per task."""
    return {
        "train": {
            each.task: {**_counts(each), "drops": drops.by_reason(each.task, "train")}
            for each in sorted(collections, key=lambda each: each.task)
        },
        "held_out": {
            each.source.task: {
                "type": each.source.type,
                **_scored(each),
                "drops": drops.by_reason(each.source.task, "held_out"),
            }
            for each in sorted(held_out, key=lambda each: each.source.task)
        },
    }


def _scored(task: HeldOutTask) -> dict[str, int]:
    docs = {"docs": len(task.docs)} if task.source.type in SEARCHED else {}
    return {"scored": len(task.units), **docs}


def _counts(collection: Collection) -> dict[str, int]:
    return {
        "docs": len(collection.docs),
        "queries": len(collection.queries),
        "qrels": len(collection.qrels),
    }
