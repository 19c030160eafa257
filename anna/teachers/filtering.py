"""Turn labelled candidates into training groups, with a reason for every candidate that is in none."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from anna import io, negatives, parts, schemas
from anna.errors import InputError
from anna.negatives import QUERY_VERDICTS, Rule, Rules, Verdict
from anna.params import Params
from anna.teachers.blocks import Block
from anna.teachers.candidates import Marker
from anna.teachers.groups import make_drops, make_groups
from anna.teachers.tables import Known

MOST = 0.25
"""Share of a task's queries without a group above which there is a warning."""

_log = logging.getLogger(__name__)


class FilterParams(Params):
    """Which candidates become positives and hard negatives of a group."""

    section: ClassVar[str] = "filter"

    rule: Rule
    """adaptive: a share of the way from the positive down to the query's background. percent: down to its lowest score.
    absolute: a fixed distance. none: off (for ablations); positives, their duplicates and the quota still count."""
    margin: float = Field(ge=0)
    """Of rule adaptive and percent a share, 0 to 1; of rule absolute a distance in fused score (z-scores)."""
    background_quantile: float = Field(ge=0, lt=1)
    """Which quantile of a query's scores is its background; rule adaptive only."""
    positives_per_query: int | None = Field(gt=0)
    """Most positives of a group, of which each epoch shows one; null: all that `negatives.find_positives` names."""
    negatives_per_query: int = Field(ge=0)
    """Hard negatives per group, hardest first; 0 trains on in-batch negatives alone."""
    min_negatives: int = Field(ge=0)
    """A query that keeps fewer gives no group."""
    max_positive_rank: int | None = Field(gt=0)
    """A query whose best positive the teacher ranks below this gives no group; null: any rank."""
    relabel_margin: float | None = Field(ge=0)
    """Candidates that the reranker puts so many standard deviations above the labelled positives become positives, too
    (`candidates.mark_relabelled`); null: none do."""

    def judging(self) -> Rules:
        """Return what candidates are judged by, besides the margin."""
        return Rules(
            rule=self.rule,
            background_quantile=self.background_quantile,
            negatives_per_query=self.negatives_per_query,
            min_negatives=self.min_negatives,
            max_positive_rank=self.max_positive_rank,
        )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.min_negatives > self.negatives_per_query:
            raise ValueError(
                f"min_negatives {self.min_negatives} is above negatives_per_query {self.negatives_per_query}, so no "
                "query gives a group; lower it"
            )
        if self.rule in ("adaptive", "percent") and self.margin > 1:
            raise ValueError(f"margin {self.margin} of rule {self.rule} is a share; choose one from 0 to 1")
        return self


class Selection(NamedTuple):
    """What becomes of some queries' candidates."""

    groups: pa.Table
    """Table GROUPS."""
    drops: pa.Table
    """Table DROPS: every candidate that is no group's negative, and every query without a group."""


class Selector:
    """Makes training groups of queries' candidates, some queries at a time."""

    def __init__(self, corpus: pa.Table, queries: pa.Table, params: FilterParams) -> None:
        """Number all ids of tables CORPUS and QUERIES."""
        self.params = params
        self._marker = Marker(corpus, queries, relabel_margin=params.relabel_margin)
        self._counted: list[tuple[pl.DataFrame, pl.DataFrame]] = []

    def select(self, block: Block) -> Selection:
        """Return the training group of each query of the block, and why every other candidate is in none.

        The positives of a group are among the drops, too, as labelled positives or relabelled: so the negatives and the
        drops of a query are together all of its candidates. A candidate that is dropped only because its query is has
        the reason of the query.

        Args:
            block: With the rows of `labels` and `qrels`, and of `reranker` where there is a `relabel_margin`.

        Raises:
            InputError: If a table has ids that corpus or queries lack, or a query no positive among its labels.
        """
        if not block.queries.num_rows:
            return Selection(schemas.GROUPS.empty_table(), schemas.DROPS.empty_table())
        rows, candidates = self._marker.mark(block)
        judgement = negatives.judge_candidates(candidates, self.params.judging(), self.params.margin)
        known = self._marker.known
        groups = make_groups(rows, judgement, candidates, known, self.params.positives_per_query)
        drops = make_drops(rows, judgement, candidates.starts)
        self._counted.append(_count(rows, groups, drops, known))
        return Selection(groups, known.decode(drops, schemas.DROPS))

    def metrics(self) -> dict[str, Any]:
        """Return counts of queries, candidates and drops by reason, so far, overall and by task."""
        queries, drops = (pl.concat(frames, rechunk=True) for frames in zip(*self._counted, strict=True))
        by_task = {
            task: _summarise(queries.filter(pl.col("task") == task), drops.filter(pl.col("task") == task))
            for task in queries["task"].unique().sort()
        }
        return _summarise(queries, drops) | {"tasks": by_task}


def select_all(selector: Selector, blocks: Iterable[Block], add_groups: io.Add, add_drops: io.Add) -> dict[str, Any]:
    """Write the groups and drops of each block, and return the metrics.

    Raises:
        InputError: If no query gives a group.
    """
    for selection in parts.ahead(map(selector.select, blocks)):
        add_groups(selection.groups)
        add_drops(selection.drops)
    metrics = selector.metrics()
    if not metrics["groups"]:
        raise InputError(
            f"no query of {metrics['queries']} gives a training group (queries: {metrics['query_drops']}, candidates: "
            f"{metrics['drops']}); {_remedies(metrics, selector.params)} in params.yaml"
        )
    return metrics


def warn_of_losses(metrics: Mapping[str, Any], params: FilterParams) -> None:
    """Warn of each task of whose queries more than `MOST` give no group; `metrics` as `select_all` gives them."""
    for task, own in metrics["tasks"].items():
        share = 1 - own["groups"] / own["queries"]
        if share > MOST:
            _log.warning(
                "task %s: %.0f %% of its queries give no training group (%s); to have more, %s",
                task,
                100 * share,
                ", ".join(f"{reason} {number}" for reason, number in own["query_drops"].items() if number),
                _remedies(own, params),
            )


def _remedies(metrics: Mapping[str, Any], params: FilterParams) -> str:
    """Return what to change so that more queries give a group, by the reasons for which they give none."""
    is_weak, is_short = (metrics["query_drops"][verdict.reason] > 0 for verdict in QUERY_VERDICTS)
    background = {"adaptive": params.background_quantile, "percent": 0.0}.get(params.rule)
    remedies = {
        "lower filter.margin": is_short and metrics["drops"][Verdict.INSIDE_MARGIN.reason] > 0,
        "lower filter.min_negatives": is_short,
        "raise retrieve_bm25.depth and retrieve_dense.depth": is_short
        and metrics["drops"][Verdict.LABELLED_POSITIVE.reason] > 2 * metrics["queries"],  # of a class
        "raise filter.max_positive_rank": is_weak and params.max_positive_rank is not None,
        "lower filter.background_quantile": is_weak and bool(background),
        "set filter.rule to absolute": is_weak and background == 0,
    }
    return " or ".join(remedy for remedy, helps in remedies.items() if helps)


def _count(
    rows: pl.DataFrame, groups: pa.Table, drops: pl.DataFrame, known: Known
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what the metrics are sums of: one row per query; and how many drops of each task have each reason."""
    queries = rows.group_by("query_id").agg(pl.col("task").first(), pl.len().alias("candidates"))
    sizes = known.encode(groups.select(["query_id"]), "groups").with_columns(
        pl.Series(name, groups[ids].combine_chunks().value_lengths().to_pylist(), dtype=pl.Int64)
        for name, ids in (("positives", "positive_ids"), ("negatives", "negative_ids"))
    )
    is_query = pl.col("doc_id").is_null().alias("is_query")
    return queries.join(sizes, on="query_id", how="left"), drops.group_by("task", "reason", is_query).len("rows")


def _summarise(queries: pl.DataFrame, drops: pl.DataFrame) -> dict[str, Any]:
    counted = drops.group_by("reason", "is_query").agg(pl.col("rows").sum()).rows()
    counts = {(reason, is_query): int(rows) for reason, is_query, rows in counted}
    return {
        "queries": queries.height,
        "groups": queries["negatives"].count(),
        "candidates": int(queries["candidates"].sum()),
        "positives": int(queries["positives"].sum()),
        "negatives": int(queries["negatives"].sum()),
        "suspected_missing_positives": counts.get((Verdict.ABOVE_POSITIVE.reason, False), 0),
        "drops": {verdict.reason: counts.get((verdict.reason, False), 0) for verdict in Verdict if verdict},
        "query_drops": {verdict.reason: counts.get((verdict.reason, True), 0) for verdict in QUERY_VERDICTS},
    }
