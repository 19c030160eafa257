"""How many candidates and queries each margin would keep, by task and reason, from the labels alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anna import io, margins, schemas
from anna.errors import InputError
from anna.margins import Calibration, Kept, Sweep
from anna.negatives import QUERY_VERDICTS, Rule, Verdict
from anna.teachers.blocks import Block, query_blocks
from anna.teachers.candidates import Marker, sources
from anna.teachers.filtering import FilterParams


def of_run(folder: Path, params: FilterParams, rule: Rule | None = None) -> Calibration:
    """Return what every margin would keep of the tables in `folder`; see `calibrate`.

    Raises:
        InputError: As `calibrate`, or if there is no query.
    """
    queries = io.read(folder / "queries.parquet", schemas.QUERIES)
    if not queries.num_rows:
        raise InputError(f"{folder / 'queries.parquet'} is empty, so no margin keeps anything; run: dvc repro ingest")
    corpus = io.read(folder / "corpus.parquet", schemas.CORPUS)
    blocks = query_blocks(queries, sources(folder, params.relabel_margin))
    return calibrate(corpus, queries, blocks, params, rule)


def calibrate(
    corpus: pa.Table, queries: pa.Table, blocks: Iterable[Block], params: FilterParams, rule: Rule | None = None
) -> Calibration:
    """Return what every margin of a rule's grid would keep; rule none has no margin, and gives no rows.

    Args:
        corpus: Table CORPUS.
        queries: Table QUERIES.
        blocks: As for `filtering.Selector.select`.
        params: As for the filter.
        rule: Instead of the one in `params`, whose margin then means nothing.

    Raises:
        InputError: If a table has ids that corpus or queries lack, or a query no positive among its labels.
    """
    chosen, margin = rule or params.rule, params.margin if rule in (None, params.rule) else None
    tried = margins.grid(chosen, margin)
    rules = params.judging()._replace(rule=chosen)
    marker = Marker(corpus, queries, relabel_margin=params.relabel_margin)
    names = np.array(sorted(queries["task"].unique().to_pylist()))
    sums = _Sums(len(tried), len(names))
    for block in blocks if tried else ():
        if block.queries.num_rows:
            rows, candidates = marker.mark(block)
            tasks = rows["task"].gather(candidates.starts).to_numpy().astype(names.dtype)
            swept = margins.sweep(candidates, rules, tried)
            sums.add(swept, np.searchsorted(names, tasks))
    return Calibration(chosen, margin, sums.rows(tried, names.tolist()))


class _Sums:
    """Counts by margin and task, added up over blocks of queries; T tasks, otherwise as in `anna.margins`."""

    def __init__(self, num_margins: int, num_tasks: int) -> None:
        shape = (num_margins, num_tasks, len(Verdict))
        self._counts_MTV, self._queries_MTV = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._gaps_MT = np.zeros(shape[:2])
        self._with_gap_MT = np.zeros(shape[:2], np.int64)

    def add(self, swept: Sweep, task_Q: NDArray[np.int64]) -> None:
        has_gap_MQ = np.isfinite(swept.gaps)
        for task in np.unique(task_Q):
            is_own_Q = task_Q == task
            self._counts_MTV[:, task] += swept.counts[:, is_own_Q].sum(axis=1)
            own_MQ = swept.query_verdicts[:, is_own_Q]
            self._queries_MTV[:, task] += np.stack([(own_MQ == verdict).sum(axis=1) for verdict in Verdict], axis=1)
            self._gaps_MT[:, task] += np.where(has_gap_MQ, swept.gaps, 0.0)[:, is_own_Q].sum(axis=1)
            self._with_gap_MT[:, task] += has_gap_MQ[:, is_own_Q].sum(axis=1)

    def rows(self, tried: Sequence[float], names: Sequence[str]) -> list[Kept]:
        """Return the rows of each task, and then those of all of them."""
        sums = (self._counts_MTV, self._queries_MTV, self._gaps_MT, self._with_gap_MT)
        counts, queries, gaps, with_gap = (
            np.concatenate([each, each.sum(axis=1, keepdims=True)], axis=1) for each in sums
        )
        means = np.divide(gaps, with_gap, out=np.full(gaps.shape, np.nan), where=with_gap > 0)
        return [
            _kept(name, margin, counts[place, task], queries[place, task], float(means[place, task]))
            for task, name in enumerate([*names, margins.ALL])
            for place, margin in enumerate(tried)
        ]


def _kept(name: str, margin: float, counts_V: NDArray[np.int64], queries_V: NDArray[np.int64], gap: float) -> Kept:
    return Kept(
        task=name,
        margin=margin,
        queries=int(queries_V.sum()),
        groups=int(queries_V[Verdict.KEPT]),
        candidates=int(counts_V.sum()),
        negatives=int(counts_V[Verdict.KEPT]),
        gap=round(gap, 6) if np.isfinite(gap) else None,
        drops={verdict.reason: int(counts_V[verdict]) for verdict in Verdict if verdict},
        query_drops={verdict.reason: int(queries_V[verdict]) for verdict in QUERY_VERDICTS},
    )
