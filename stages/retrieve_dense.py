"""Retrieve each query's candidates by the cosine of the dense teacher, within the documents of its own task.

The vectors are kept: `train` takes soft labels over whole batches from them.

Encodes every document and query once: minutes on CPU by default, GPU hours at the paper's size. Any change of
`retrieve_dense.*` encodes again; fused scores and margins are tuned in `label` and `filter`.
"""

from pathlib import Path

from anna import io, log, origins, schemas
from anna.teachers import dense, runs

CORPUS, QUERIES = Path("data/corpus.parquet"), Path("data/queries.parquet")
RUN, VECTORS = Path("data/dense_run.parquet"), Path("data/dense_vectors.parquet")
METRICS = Path("metrics/retrieve_dense.json")

INPUTS, OUTPUTS, PARAMS = (CORPUS, QUERIES), (RUN, VECTORS, METRICS), (dense.DenseParams,)


def main() -> None:
    """Run the stage."""
    params = dense.DenseParams.load()
    corpus, queries = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    model, settings = origins.fetch_model(params.model), params.model_dump(exclude={"model"})
    run, vectors = dense.retrieve(corpus, queries, model, **settings)
    io.write(RUN, run, schemas.RUN, unit="cosine", teacher=origins.describe(params.model))
    io.write(VECTORS, vectors, schemas.VECTORS, teacher=origins.describe(params.model))
    io.write_json(METRICS, runs.summarise_run(run, queries))


if __name__ == "__main__":
    log.run_stage("retrieve_dense", main)
