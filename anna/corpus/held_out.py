"""The held-out tasks: what each is scored on, and the in-context examples that it is not scored on."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from anna.corpus.dedup import merge_texts
from anna.corpus.drops import Drop, DropLog, keep, remedy
from anna.corpus.ids import text_id
from anna.corpus.rows import load_distractors, load_rows
from anna.corpus.sources import Cleaning, HeldOutSource
from anna.corpus.units import LABELLED, PAIRS, Unit, choose_examples, make_units, shuffle, take_in_turn
from anna.errors import InputError
from anna.folding import normalise
from anna.prompts import Example
from anna.seeding import derive_seed

FEWEST = 2
"""Documents, classes or scores that a task needs: among fewer there is nothing to tell apart."""

TAKEN = 0.25
"""We warn if in-context examples take more than this share of a task."""

_log = logging.getLogger(__name__)


@dataclass
class HeldOutTask:
    """One held-out task."""

    source: HeldOutSource
    units: list[Unit]
    """What is scored; in classification, without the texts that the classifier is fitted on."""
    examples: list[Example]
    fitted: list[Unit] = field(default_factory=list)
    """Of classification: what the classifier is fitted on."""
    distractors: list[str] = field(default_factory=list)
    """Of retrieval: documents that no query asks for."""

    @property
    def judged(self) -> set[str]:
        """Every text that scored ones are judged with: relevant documents, second texts of pairs, summaries."""
        return {other for unit in self.units for other in unit.others}

    @property
    def docs(self) -> set[str]:
        """Those, and the other documents that are searched."""
        return self.judged.union(self.distractors)


def load_task(source: HeldOutSource, drops: DropLog, cleaning: Cleaning, *, num_examples: int) -> HeldOutTask:
    """Return a held-out task, read, sampled and split into what is scored and what is shown.

    Args:
        source: Where its rows come from.
        drops: Counts what is left out, by the reasons of `load_rows`, `make_units` and these. `example`: a unit that
            is shown or shares a text with one that is, or a distractor that is shown. `beyond_rows`: what `rows` leaves
            out. Of retrieval, `duplicate_document` and `near_duplicate_document`.
        cleaning: How its rows are cleaned and drawn.
        num_examples: In-context examples to set aside.

    Raises:
        InputError: If there are not enough rows for the examples and for a score.
    """
    drop = drops.of(source.task, "held_out")
    pool = _pool(source, drops, cleaning)
    examples = _examples(source, pool, drops, cleaning, num_examples)
    shown = frozenset(normalise(text) for example in examples for text in example)
    units = keep(pool, lambda unit: None if unit.texts.isdisjoint(shown) else "example", lambda unit: unit.text, drop)
    _warn_of_examples(source.task, len(pool) - len(units), len(pool))
    fitted = take_in_turn(units, source.train_rows) if source.train_rows else []
    is_fitted = frozenset(fitted)
    units = [unit for unit in units if unit not in is_fitted]
    for unit in units[source.rows :] if source.rows else ():
        drop("beyond_rows", unit.text)
    distractors = load_distractors(source, drop, max_faulty_share=cleaning.max_faulty_share, seed=cleaning.seed)
    distractors = keep(distractors, lambda doc: "example" if normalise(doc) in shown else None, str, drop)
    task = HeldOutTask(source, units[: source.rows], examples, fitted, distractors)
    if source.type == "Retrieval":
        _merge_documents(task, cleaning.near_duplicate, drop)
    _check(task, drops.by_reason(source.task, "held_out"))
    return task


def _warn_of_examples(task: str, lost: int, of: int) -> None:
    """Warn if in-context examples take much of what could be scored: all that shares a text with one goes, too."""
    if lost > TAKEN * of:
        _log.warning(
            "held-out task %s: %d of %d are not scored, as they share a text with an in-context example; lower "
            "ingest.examples_per_task, or name another source under its `examples`",
            task,
            lost,
            of,
        )


def _pool(source: HeldOutSource, drops: DropLog, cleaning: Cleaning) -> list[Unit]:
    """Return all that can be scored or shown, in the order in which it is drawn."""
    drop = drops.of(source.task, "held_out")
    rows = load_rows(source, drop, task=source.task, max_faulty_share=cleaning.max_faulty_share)
    units = make_units(source, rows, drop)
    if not units:
        hint = ", and `relevant`: compared as text, a JSON true as 'True'" if source.type == "Reranking" else ""
        raise InputError(
            f"held-out task {source.task!r}: nothing is left to score; dropped: "
            f"{drops.by_reason(source.task, 'held_out')}. Correct its columns{hint}"
        )
    return shuffle(units, derive_seed(cleaning.seed, "held_out", source.task))


def _examples(
    source: HeldOutSource, pool: Sequence[Unit], drops: DropLog, cleaning: Cleaning, count: int
) -> list[Example]:
    avoid: frozenset[str] = frozenset()
    candidates = pool
    if source.examples is not None:
        # All rows of the task are scored, so no example may hold a text of theirs.
        avoid = frozenset[str]().union(*(unit.texts for unit in pool))
        other = source.model_copy(update={"origin": source.examples})
        drops = DropLog()  # a log apart: these rows only give examples and are not the task's own
        drop = drops.of(source.task, "held_out")
        rows = load_rows(other, drop, task=source.task, max_faulty_share=cleaning.max_faulty_share, is_strict=False)
        candidates = shuffle(make_units(other, rows, drop), derive_seed(cleaning.seed, "examples", source.task))
    examples = choose_examples(candidates, count, avoid)
    if len(examples) < count:
        classes = {unit.label for unit in candidates}
        if source.type in LABELLED and len(classes) == len(candidates) > 1:
            raise InputError(
                f"held-out task {source.task!r}: each of its {len(classes)} texts has a class of its own, such as "
                f"{min(classes)!r}, so none can be shown with another of its class; correct its label column"
            )
        raise InputError(
            f"held-out task {source.task!r} has rows for {len(examples)} in-context examples, expected {count}; "
            f"dropped: {drops.by_reason(source.task, 'held_out')}. Lower ingest.examples_per_task or name another "
            "source under its `examples`"
        )
    return examples


def _merge_documents(task: HeldOutTask, near_duplicate: float | None, drop: Drop) -> None:
    """Put one document in place of its duplicates, so that no copy of a relevant one counts as wrong."""
    texts = {text_id(task.source.task, "d", doc): doc for doc in task.docs}
    survivor = merge_texts(texts, near_duplicate, "document", drop)
    for place, unit in enumerate(task.units):
        judged: dict[str, float] = {}
        for other, score in zip(unit.others, unit.scores, strict=True):
            judged[survivor[other]] = max(score, judged.get(survivor[other], score))
        others = tuple(sorted(judged))
        task.units[place] = unit._replace(others=others, scores=tuple(judged[other] for other in others))
    task.distractors = [survivor[doc] for doc in task.distractors]


def _check(task: HeldOutTask, dropped: dict[str, int]) -> None:
    """Refuse a task that cannot be scored, or not as its type says."""
    place = f"held-out task {task.source.task!r}"
    lower = ("lower its train_rows",) if task.fitted else ()
    lost = f"dropped: {dropped}; {remedy(dropped, *lower)}"
    if not task.units and task.fitted:
        raise InputError(
            f"{place}: nothing is left to score, its train_rows {task.source.train_rows} take all {len(task.fitted)} "
            f"texts; lower train_rows; dropped: {dropped}"
        )
    if not task.units:
        raise InputError(f"{place}: nothing is left to score; {lost}")
    if task.source.type in LABELLED and len({unit.label for unit in task.units}) < FEWEST:
        raise InputError(f"{place}: its texts are all of class {task.units[0].label!r}, expected two or more; {lost}")
    unknown = {unit.label for unit in task.units} - {unit.label for unit in task.fitted}
    if task.source.type == "Classification" and unknown:
        raise InputError(f"{place}: no text of classes {sorted(unknown)} to fit on; raise its train_rows")
    if task.source.type == "Retrieval" and len(task.docs) < FEWEST:
        raise InputError(f"{place}: has {len(task.docs)} document, expected {FEWEST} or more; {lost}")
    if task.source.type in PAIRS:
        _check_scores(task, place, lost)


def _check_scores(task: HeldOutTask, place: str, lost: str) -> None:
    """Refuse pairs that cannot be told apart, or whose scores are of another type of task: `evaluate` goes by them."""
    scores = sorted({unit.scores[0] for unit in task.units})
    if len(scores) < FEWEST:
        raise InputError(f"{place}: its pairs all have score {scores[0]}, expected two or more scores; {lost}")
    is_binary = scores == [0.0, 1.0]
    if task.source.type == "STS" and is_binary:
        raise InputError(
            f"{place}: has scores {scores} alone, which is PairClassification and not STS; correct its type, raise its "
            "rows or correct its score column"
        )
    if task.source.type == "PairClassification" and not is_binary:
        raise InputError(
            f"{place}: has scores such as {scores[:3]}, expected 0 and 1 alone for PairClassification; set its type to "
            "STS or correct its score column"
        )


def held_out_texts(tasks: Iterable[HeldOutTask]) -> set[str]:
    """Return every text that a task is scored on, fitted on, or shows, none of which is trained on."""
    texts: set[str] = set()
    for task in tasks:
        texts |= task.docs if task.source.hold_out_distractors else task.judged
        texts.update(unit.text for unit in (*task.units, *task.fitted))
        texts.update(text for example in task.examples for text in example)
    return texts
