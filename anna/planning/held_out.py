"""How many texts evaluation embeds: from the held-out tables, from params, or from mteb's statistics of its tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from anna import io, schemas
from anna.params import HELD_OUT
from anna.planning.counts import ASSUMED_LENGTHS, BYTES_PER_TOKEN, Lengths, is_ingested, prompt_tokens
from anna.planning.settings import Settings
from anna.planning.sources import filters, known_rows, rows_of

TABLES = {
    "corpus": (("text",), False),
    "queries": (("text",), True),
    "pairs": (("text1", "text2"), True),
    "labelled": (("text",), True),
    "summaries": (("source", "summaries"), True),
}
"""Held-out tables, their columns of texts, and whether each gets a prompt whatever its task is."""

ASSUMED_ROWS = 1000
"""Of a held-out source whose size nobody knows (assumed, and the plan says so)."""

JUDGED = 12
"""Documents of a query of a held-out reranking task (default)."""

_DOCS, _SHORT, _CLASSED = ASSUMED_LENGTHS["retrieval"][1], ASSUMED_LENGTHS["sts"][0], np.array([15.0, 30, 60, 120, 300])

_SIDES: Mapping[str, Sequence[tuple[float, Lengths, bool]]] = {
    "Retrieval": ((1, ASSUMED_LENGTHS["retrieval"][0], True), (1, _DOCS, False)),
    "Reranking": ((1, ASSUMED_LENGTHS["retrieval"][0], True), (JUDGED, _SHORT * 2, False)),
    "STS": ((2, _SHORT, True),),
    "PairClassification": ((2, _SHORT, True),),
    "Classification": ((1, _CLASSED, True),),
    "Clustering": ((1, _CLASSED, True),),
    "Summarization": ((3, _SHORT * 2, True),),
}
"""By type: texts of a row, their lengths where there are no tables (assumed), and whether they get a prompt."""


class Texts(NamedTuple):
    """Texts of one task that begin alike."""

    task: str
    number: float
    lengths: Lengths
    prompt_tokens: float
    """Of the zero-shot prompt; 0: bare."""


def texts(settings: Settings) -> list[Texts]:
    """Return the texts of the benchmark's tasks, each text once."""
    if settings.evaluate.benchmark != HELD_OUT:
        return from_mteb(settings)
    if _has_tables(settings):
        found = from_tables(settings)
    else:
        found = [part for source in settings.ingest.held_out for part in _of_source(source, settings)]
    chosen = settings.evaluate.tasks
    return [part for part in found if chosen is None or part.task in chosen]


def uncertain(settings: Settings) -> tuple[list[str], list[str]]:
    """Return the tasks that `ASSUMED_ROWS` are assumed of, and the filters of rows that are not applied."""
    if settings.evaluate.benchmark != HELD_OUT or _has_tables(settings):
        return [], []
    chosen, assumed, filtered = settings.evaluate.tasks, list[str](), list[str]()
    for source in settings.ingest.held_out:
        if chosen is not None and source.task not in chosen:
            continue
        parts = [(source, source.task), *((part, f"{source.task}'s distractors") for part in source.distractors)]
        for part, name in parts:
            assumed += [name] if part.rows is None and known_rows(part) is None else []
            filtered += filters(part, name)
    return assumed, filtered


def _has_tables(settings: Settings) -> bool:
    return is_ingested(settings) and all(Path(f"data/eval/{name}.parquet").is_file() for name in TABLES)


def from_tables(settings: Settings, folder: Path = Path("data/eval")) -> list[Texts]:
    """Return what the held-out tables hold."""
    found = []
    for name, (columns, is_prompted) in TABLES.items():
        path = folder / f"{name}.parquet"
        with io.opened(path, schemas.EVAL_TABLES[name]):
            table = pl.read_parquet(path)
        for column in columns:
            rows = table.select("task", pl.col(column).alias("text"))
            rows = (rows.explode("text") if isinstance(rows.schema["text"], pl.List) else rows).unique()
            sized = rows.select("task", (pl.col("text").str.len_bytes() / BYTES_PER_TOKEN + 1).alias("n"))
            for (task,), part in sized.sort("task").partition_by("task", as_dict=True).items():
                prompt = _prompt(str(task), settings, is_prompted)
                found.append(Texts(str(task), len(part), part["n"].to_numpy(), prompt))
    return found


def _of_source(source: Any, settings: Settings) -> list[Texts]:
    """Return what a held-out source comes to by its type and `rows`."""
    rows = _rows(source) + (source.train_rows or 0)
    extra = sum(_rows(part) * _listed(part) for part in source.distractors)
    return [
        Texts(
            source.task,
            rows * per_row * (1 if is_prompted else _listed(source)) + (0 if is_prompted else extra),
            lengths,
            _prompt(source.task, settings, is_prompted),
        )
        for per_row, lengths, is_prompted in _SIDES[source.type]
    ]


def _rows(source: Any) -> int:
    return rows_of(source, known_rows(source), ASSUMED_ROWS)


def _listed(source: Any) -> float:
    """Return the documents of a row that has a list of them; 1 where it has one, or nobody knows."""
    known = known_rows(source) if "docs" in source.columns else None
    return known.docs if known else 1.0


def _prompt(task: str, settings: Settings, is_prompted: bool) -> float:
    prompt = settings.prompts.tasks[task]
    return prompt_tokens(prompt) if is_prompted or prompt.symmetric else 0.0


def from_mteb(settings: Settings) -> list[Texts]:
    """Return what the tasks of one of mteb's benchmarks hold, by the statistics that come with the library."""
    import mteb  # heavy; only its own benchmarks need it

    chosen, found = settings.evaluate.tasks, []
    for task in mteb.get_benchmark(settings.evaluate.benchmark).tasks:
        metadata = task.metadata
        if chosen is not None and metadata.name not in chosen:
            continue
        stats = metadata.descriptive_stats or {}
        share = getattr(task, "max_fraction_of_documents_to_embed", None) or 1.0  # of clustering tasks
        for split in task.eval_splits:
            for subset in task.hf_subsets:
                own = stats.get(split, {})
                own = own.get("hf_subset_descriptive_stats", {}).get(subset, own)
                parts = _of_statistics(metadata.name, own, settings)
                found += [part._replace(number=part.number * share) for part in parts]
    return found


def _of_statistics(task: str, statistics: Mapping[str, Any], settings: Settings) -> list[Texts]:
    """Return the texts that mteb's statistics of one split tell of: unique ones, of mean length each."""
    found = []
    for part, values in statistics.items():
        if isinstance(values, Mapping) and values.get("unique_texts"):
            length = np.array([values["average_text_length"] / BYTES_PER_TOKEN + 1])
            prompt = _prompt(task, settings, part != "documents_text_statistics")
            found.append(Texts(task, values["unique_texts"], length, prompt))
    return found
