"""How many texts of which lengths there are to train on: from the tables of `ingest` where they are, else from params.

Lengths are in tokens, estimated from bytes, so that no tokenizer is needed; see `BYTES_PER_TOKEN`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from anna import io, schemas
from anna.errors import InputError
from anna.params import last_read
from anna.planning.known_rows import ASSUMED, Known
from anna.planning.settings import Settings
from anna.planning.sources import LISTS, filters, known_rows, rows_of
from anna.prompts import query_prefix

BYTES_PER_TOKEN = 4.4
"""Of English text: 4.1 to 5.2 over the tasks of the default, by the tokenizers of SmolLM2 and of MiniLM."""

Lengths = NDArray[np.float64]
"""Tokens of texts, or of a few that stand for all."""

ASSUMED_LENGTHS: Mapping[str, tuple[Lengths, Lengths]] = {
    "retrieval": (np.array([6.0, 9, 12, 16, 30]), np.array([25.0, 60, 100, 150, 300])),
    "sts": (np.array([7.0, 10, 13, 18, 30]),) * 2,
    "classification": (np.array([8.0, 15, 30, 60, 200]),) * 2,
}
"""Of queries and of documents where there are no tables (assumed)."""

KEPT: Mapping[str, tuple[float, float]] = {
    "retrieval": (0.97, 0.92),
    "sts": (0.24, 0.95),
    "classification": (0.94, 0.94),
}
"""Queries and documents of a source row by kind: what the default keeps after decontamination and deduplication, of
similarities those from `positive_at` on."""

GROUPS_PER_QUERY = 0.98
"""Training groups of a query, rounded down: 5,524 of 5,601 in the default."""

INGESTED, FILTERED = Path("metrics/ingest.json"), Path("metrics/filter.json")
CORPUS, QUERIES = Path("data/corpus.parquet"), Path("data/queries.parquet")


@dataclass(frozen=True)
class Task:
    """One training task, a collection of its own."""

    name: str
    kind: str
    queries: int
    docs: int
    groups: int
    """To train on."""
    query_lengths: Lengths
    doc_lengths: Lengths
    prompt_tokens: float
    """Of the zero-shot prompt."""
    is_symmetric: bool
    has_negatives: bool
    """Whether its rows name documents that are not relevant."""


@dataclass(frozen=True)
class Counts:
    """All training tasks, and what is uncertain of them."""

    tasks: tuple[Task, ...]
    basis: str
    """Where the counts come from."""
    assumed: tuple[str, ...]
    """Tasks whose number of rows is not known."""
    filtered: tuple[str, ...] = ()
    """Filters of rows that are not applied, and of which task: there may be fewer rows."""

    @property
    def queries(self) -> int:
        """Of all tasks together."""
        return sum(task.queries for task in self.tasks)

    @property
    def docs(self) -> int:
        """Of all tasks together."""
        return sum(task.docs for task in self.tasks)

    @property
    def groups(self) -> int:
        """To train on, of all tasks together."""
        return sum(task.groups for task in self.tasks)

    @property
    def trained(self) -> tuple[Task, ...]:
        """Tasks that have groups to train on."""
        return tuple(task for task in self.tasks if task.groups)


def mean(lengths: Lengths, limit: float, padded_to: int = 1) -> float:
    """Return the mean length of texts cut to `limit`, each padded to a multiple of `padded_to`."""
    cut = np.minimum(np.maximum(lengths, 1.0), limit)
    return float((np.ceil(cut / padded_to) * padded_to if padded_to > 1 else cut).mean()) if len(cut) else 0.0


def tokens(text: str) -> float:
    """Return about how many tokens a text has."""
    return len(text.encode()) / BYTES_PER_TOKEN


def prompt_tokens(prompt: Any) -> float:
    """Return about how many tokens a zero-shot prompt has."""
    return tokens(query_prefix(prompt.instruction))


def count(settings: Settings, params: Path, given: Mapping[str, int]) -> Counts:
    """Return the training tasks of `params`.

    Args:
        settings: What it says; tables count where they were made from the same sources.
        params: The file, for messages.
        given: Rows of tasks that the user knows.

    Raises:
        InputError: If a given task is none of the training tasks.
    """
    names = {source.task for source in settings.ingest.train}
    for name in given:
        if name not in names:
            raise InputError(f"--rows {name}: no task of ingest.train in {params} (it has {sorted(names)})")
    if INGESTED.is_file() and not given and is_ingested(settings):
        return _from_tables(settings)
    return _from_params(settings, given)


def is_ingested(settings: Settings, root: Path = Path()) -> bool:
    """Return whether the last run of `ingest`, of the project at `root`, was one of the same sources."""
    try:
        return bool(type(settings.ingest).model_validate(last_read("ingest", root).get("ingest")) == settings.ingest)
    except ValidationError:
        return False


def _from_tables(settings: Settings) -> Counts:
    made: dict[str, Any] = io.read_json(INGESTED).get("train", {})
    groups = io.read_json(FILTERED)["tasks"] if FILTERED.is_file() else {}
    is_here = CORPUS.is_file() and QUERIES.is_file()
    lengths = (_lengths(CORPUS, schemas.CORPUS), _lengths(QUERIES, schemas.QUERIES)) if is_here else ({}, {})
    tasks = []
    for source in _by_task(settings):
        name = source[0].task
        if name not in made:
            raise InputError(f"{INGESTED} has no task {name!r}; delete it and run: dvc repro ingest")
        own = made[name]
        task = _task(source, own["queries"], own["docs"], settings)
        asked, docs = lengths[1].get(name, task.query_lengths), lengths[0].get(name, task.doc_lengths)
        filtered = groups.get(name, {})
        is_of_them = filtered.get("queries") == own["queries"]  # else `filter` has not run since
        number = filtered["groups"] if is_of_them else own["queries"] * GROUPS_PER_QUERY
        number = round(number * (1 - settings.ingest.validation_share))
        tasks.append(dataclasses.replace(task, groups=number, query_lengths=asked, doc_lengths=docs))
    what = "the tables of the last run" if is_here else "the counts of the last run; lengths are assumed"
    return Counts(tuple(tasks), what, ())


def _from_params(settings: Settings, given: Mapping[str, int]) -> Counts:
    tasks, assumed, filtered = [], list[str](), list[str]()
    for sources in _by_task(settings):
        queries = docs = 0.0
        for place, source in enumerate(sources):
            known = known_rows(source)
            if known is None and source.rows is None and source.task not in given:
                assumed.append(source.task)
            if source.task not in given:
                filtered += filters(source, source.task)
            # What is given of a task is shared among its sources; the parts add up to it.
            part = (given[source.task] + place) // len(sources) if source.task in given else None
            rows = rows_of(source, known, ASSUMED.rows) if part is None else part
            known = known or (Known(ASSUMED.rows) if LISTS.isdisjoint(source.columns) else ASSUMED)
            per_query, per_row = KEPT[source.kind]
            queries += rows * per_query
            docs += min(rows * per_row * known.docs, known.at_most or 10**12) + _distractors(source, assumed, filtered)
        tasks.append(_task(sources, round(queries), round(docs), settings))
    return Counts(tuple(tasks), "params alone: lengths of texts are assumed", _unique(assumed), _unique(filtered))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _task(sources: tuple[Any, ...], queries: int, docs: int, settings: Settings) -> Task:
    first = sources[0]
    asked, read = ASSUMED_LENGTHS[first.kind]
    prompt = settings.prompts.tasks[first.task]
    return Task(
        name=first.task,
        kind=first.kind,
        queries=queries,
        docs=docs,
        groups=round(queries * (1 - settings.ingest.validation_share) * GROUPS_PER_QUERY),
        query_lengths=asked,
        doc_lengths=read,
        prompt_tokens=prompt_tokens(prompt),
        is_symmetric=prompt.symmetric,
        has_negatives=any("negatives" in source.columns for source in sources),
    )


def _by_task(settings: Settings) -> list[tuple[Any, ...]]:
    names = dict.fromkeys(source.task for source in settings.ingest.train)
    return [tuple(s for s in settings.ingest.train if s.task == name) for name in names]


def _distractors(source: Any, assumed: list[str], filtered: list[str]) -> float:
    """Return how many documents join a task that no row names; what is not known of them is added to the lists."""
    docs, name = 0.0, f"{source.task}'s distractors"
    for part in source.distractors:
        known = known_rows(part)
        if part.rows is None and known is None:
            assumed.append(f"{name} (set rows there)")
        filtered += filters(part, name)
        docs += rows_of(part, known, ASSUMED.rows) * (known.docs if known else 1.0) * KEPT[source.kind][1]
    return docs


def _lengths(path: Path, schema: pa.Schema) -> dict[str, Lengths]:
    """Return the estimated tokens of every text of a table, EOS included, by task."""
    with io.opened(path, schema):
        table = pl.scan_parquet(path).select("task", (pl.col("text").str.len_bytes() / BYTES_PER_TOKEN + 1).alias("n"))
        parts = table.collect().partition_by("task", as_dict=True)
    return {str(key[0]): part["n"].to_numpy() for key, part in parts.items()}
