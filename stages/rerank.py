"""Score each query's best candidates with the most expensive teacher, a reranker.

A minute on CPU by default, many GPU hours at the paper's size: cost grows with `depth`, `queries_per_task`, the token
limits and the model. Queries that are not chosen are labelled from the two retrievers. Scores are kept in `runs/store`,
so a killed run goes on where it was, and only new pairs cost anything: `depth`, `queries_per_task` and
`tokens_per_batch` are safe to change; the model, its kind, `dtype` and the token limits score again.
"""

from collections import Counter
from pathlib import Path

from anna import engine, io, log, origins, schemas
from anna.teachers import agreement, blocks, shortlist
from anna.teachers.pairs import texts_of
from anna.teachers.reranker import UNITS, Reranker, RerankParams

CORPUS, QUERIES, QRELS = Path("data/corpus.parquet"), Path("data/queries.parquet"), Path("data/qrels.parquet")
BM25_RUN, DENSE_RUN = Path("data/bm25_run.parquet"), Path("data/dense_run.parquet")
RUN, METRICS = Path("data/reranker_run.parquet"), Path("metrics/rerank.json")

SOURCES = {
    "qrels": (QRELS, schemas.QRELS),
    "bm25": (BM25_RUN, schemas.RUN),
    "dense": (DENSE_RUN, schemas.RUN),
}
"""What is read in blocks of queries."""

INPUTS, OUTPUTS = (CORPUS, QUERIES, QRELS, BM25_RUN, DENSE_RUN), (RUN, METRICS)
PARAMS, HOW = (RerankParams,), (engine.ScoringParams,)


def main() -> Counter[str]:
    """Run the stage; return how many scores were reused and how many computed."""
    params, counts = RerankParams.load(), Counter[str]()
    corpus, queries = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    pairs = shortlist.choose_candidates(
        queries,
        blocks.query_blocks(queries, SOURCES),
        depth=params.depth,
        queries_per_task=params.queries_per_task,
    )
    with engine.opened(engine.ScoringParams.load()) as where:
        run = shortlist.to_run(pairs, Reranker(params, counts, where).score(texts_of(pairs, corpus, queries)))
        exact = params.model_copy(update={"dtype": "float32"})
        agreed = agreement.check(
            run, corpus, queries, lambda pairs: Reranker(exact, counts, where).score(pairs), params
        )
    io.write(RUN, run, schemas.RUN, unit=UNITS[params.kind], teacher=origins.describe(params.model))
    io.write_json(METRICS, shortlist.summarise(run, queries) | agreed)
    return counts


if __name__ == "__main__":
    log.run_stage("rerank", main)
