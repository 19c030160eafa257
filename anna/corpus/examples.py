"""In-context examples of mteb's own tasks: from data to train on, and never a text that the task scores."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from anna import log
from anna.corpus.clean import UnusableError, clean_text
from anna.corpus.collection import Pair, make_pairs
from anna.corpus.drops import uncounted
from anna.corpus.rows import load_rows, sample
from anna.corpus.sources import Cleaning, TrainSource
from anna.corpus.units import Unit, choose_examples, shuffle
from anna.folding import normalise
from anna.prompts import Example
from anna.seeding import derive_seed

_log = logging.getLogger(__name__)


def load_examples(
    sources: Sequence[TrainSource], scored_texts: Callable[[str], Iterable[str]], cleaning: Cleaning, *, count: int
) -> dict[str, list[Example]]:
    """Return up to `count` in-context examples of each task, as training shows them: a query and a positive.

    Args:
        sources: One per task. Where it has classes, query and positive are two texts of one class.
        scored_texts: Task name -> every text that the task scores. No example holds one of them, whatever its case,
            punctuation and spacing.
        cleaning: How rows are cleaned and drawn. The draw does not depend on the order of the rows.
        count: How many; fewer where the source has no more.

    Raises:
        InputError: If a source cannot be read.
    """
    examples: dict[str, list[Example]] = {}
    for source in log.progress(sources, unit="tasks", desc="in-context examples"):
        rows = load_rows(source, uncounted, task=source.task, max_faulty_share=cleaning.max_faulty_share)
        drawn = sample(rows, source.rows, uncounted, seed=derive_seed(cleaning.seed, "train", source.task))
        units = _units(make_pairs(source, drawn, uncounted))
        candidates = shuffle(units, derive_seed(cleaning.seed, "examples", source.task))
        avoid = frozenset(_comparable(scored_texts(source.task)))
        examples[source.task] = choose_examples(candidates, count, avoid)
        if len(examples[source.task]) < count:
            _log.warning(
                "%s: %d of %d in-context examples; the other rows hold texts that the task scores, or no positive",
                source.task,
                len(examples[source.task]),
                count,
            )
    return examples


def _comparable(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts in the form in which units hold theirs; what cleaning refuses is in no unit."""
    for text in texts:
        with suppress(UnusableError):
            yield normalise(clean_text(text))


def _units(pairs: Iterable[Pair]) -> list[Unit]:
    """Return labelled texts, or queries with all their judged documents, at least one of them a positive."""
    judged: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for pair in pairs:
        docs = judged[pair.query, pair.label or ""]
        docs[pair.doc] = max(float(pair.relevance), docs.get(pair.doc, 0.0))
    return [
        Unit(query, label=label) if label else Unit(query, tuple(docs), tuple(docs.values()))
        for (query, label), docs in judged.items()
        if any(docs.values())
    ]
