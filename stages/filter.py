"""Filter false negatives out of the candidates by a margin below the query's positive, and form training groups.

Keeps the hardest candidates that lie a margin below the positive and records why every other candidate was dropped.
Seconds on CPU: change `filter.*` freely, no teacher is run again.
"""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from anna import io, log, parts, schemas
from anna.negatives import Rule
from anna.params import Params
from anna.teachers import blocks, filtering

CORPUS, QUERIES, QRELS = Path("data/corpus.parquet"), Path("data/queries.parquet"), Path("data/qrels.parquet")
LABELS = Path("data/labels.parquet")
GROUPS, DROPS, METRICS = Path("data/groups.parquet"), Path("data/drops.parquet"), Path("metrics/filter.json")


class FilterParams(Params):
    """Which candidates become hard negatives."""

    section: ClassVar[str] = "filter"

    rule: Rule
    """adaptive: a share of the way from the positive down to the query's background. percent: down to its lowest score.
    absolute: a fixed distance. none: off (for ablations); positives, their duplicates and the quota still count."""
    margin: float = Field(ge=0)
    """Of rule adaptive and percent a share, 0 to 1; of rule absolute a distance in fused score (z-scores)."""
    background_quantile: float = Field(ge=0, lt=1)
    """Which quantile of a query's scores is its background; rule adaptive only."""
    negatives_per_query: int = Field(ge=0)
    """Hard negatives per group, hardest first; 0 trains on in-batch negatives alone."""
    min_negatives: int = Field(ge=0)
    """A query that keeps fewer gives no group."""
    max_positive_rank: int | None = Field(default=None, gt=0)
    """A query whose best positive the teacher ranks below this gives no group; null: any rank."""

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


SOURCES = {"labels": (LABELS, schemas.LABELS), "qrels": (QRELS, schemas.QRELS)}
"""What is read in blocks of queries."""

INPUTS, OUTPUTS, PARAMS = (CORPUS, QUERIES, QRELS, LABELS), (GROUPS, DROPS, METRICS), (FilterParams,)


def main() -> None:
    """Run the stage."""
    params = FilterParams.load()
    queries = io.read(QUERIES, schemas.QUERIES)
    selector = filtering.Selector(io.read(CORPUS, schemas.CORPUS), queries, **params.model_dump())
    sources = blocks.query_blocks(queries, SOURCES)
    said = {"rule": params.rule, "margin": params.margin}
    with parts.writing(GROUPS, schemas.GROUPS, **said) as groups, parts.writing(DROPS, schemas.DROPS, **said) as drops:
        metrics = filtering.select_all(selector, sources, groups, drops)
    io.write_json(METRICS, metrics)


if __name__ == "__main__":
    log.run_stage("filter", main)
