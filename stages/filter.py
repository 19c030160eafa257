"""Filter false negatives out of the candidates by a margin below the query's positive, and form training groups.

Keeps one positive of each query or several, and the hardest candidates that lie a margin below; records why every other
candidate was dropped. Seconds on CPU: change `filter.*` freely, no teacher is run again.
"""

from pathlib import Path
from typing import Any

from anna import io, log, schemas
from anna.teachers import blocks, candidates, filtering
from anna.teachers.filtering import FilterParams

CORPUS, QUERIES, QRELS = Path("data/corpus.parquet"), Path("data/queries.parquet"), Path("data/qrels.parquet")
LABELS, RERANKER_RUN = Path("data/labels.parquet"), Path("data/reranker_run.parquet")
GROUPS, DROPS, METRICS = Path("data/groups.parquet"), Path("data/drops.parquet"), Path("metrics/filter.json")

INPUTS, OUTPUTS = (CORPUS, QUERIES, QRELS, LABELS, RERANKER_RUN), (GROUPS, DROPS, METRICS)
PARAMS = (FilterParams,)


def main() -> None:
    """Run the stage."""
    params = FilterParams.load()
    queries = io.read(QUERIES, schemas.QUERIES)
    selector = filtering.Selector(io.read(CORPUS, schemas.CORPUS), queries, params)
    said: dict[str, Any] = {"rule": params.rule, "margin": params.margin}
    if params.relabel_margin is not None:
        said["relabel_margin"] = params.relabel_margin
    sources = candidates.sources(LABELS.parent, params.relabel_margin)
    with io.writing(GROUPS, schemas.GROUPS, **said) as groups, io.writing(DROPS, schemas.DROPS, **said) as drops:
        metrics = filtering.select_all(selector, blocks.query_blocks(queries, sources), groups, drops)
    io.write_json(METRICS, metrics)
    filtering.warn_of_losses(metrics, params)


if __name__ == "__main__":
    log.run_stage("filter", main)
