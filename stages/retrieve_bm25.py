"""Retrieve each query's candidates by BM25, within the documents of its own task.

Seconds on CPU. `k1`, `b` and `depth` are safe to change: the dense teacher is not run again, the reranker is.
"""

from pathlib import Path

from anna import io, log, schemas
from anna.teachers import bm25, runs

CORPUS, QUERIES = Path("data/corpus.parquet"), Path("data/queries.parquet")
RUN, METRICS = Path("data/bm25_run.parquet"), Path("metrics/retrieve_bm25.json")

INPUTS, OUTPUTS, PARAMS = (CORPUS, QUERIES), (RUN, METRICS), (bm25.Bm25Params,)


def main() -> None:
    """Run the stage."""
    params = bm25.Bm25Params.load()
    corpus, queries = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    run = bm25.retrieve(corpus, queries, k1=params.k1, b=params.b, depth=params.depth)
    io.write(RUN, run, schemas.RUN, unit="bm25", teacher=f"BM25 ({bm25.METHOD}), k1={params.k1}, b={params.b}")
    metrics = runs.summarise_run(run, queries)
    bm25.warn_of_misses(metrics)
    io.write_json(METRICS, metrics)


if __name__ == "__main__":
    log.run_stage("retrieve_bm25", main)
