"""Retrieve each query's candidates by the cosine of the dense teacher, within the documents of its own task.

Encodes every document and query once: a minute on CPU by default, GPU hours at the paper's size. What a text's vector
is stands in `runs/store`, so a killed run goes on where it was, and only new texts cost anything: `depth`, `index.*`
and `tokens_per_batch` are safe to change; another model, `max_tokens`, `dtype` or prompt encodes all texts again. The
vectors are an output, too: `train` takes soft labels over whole batches from them.
"""

from collections import Counter
from pathlib import Path

from anna import engine, io, log, origins, parts, schemas
from anna.teachers import agreement, dense, retrieval, runs

CORPUS, QUERIES = Path("data/corpus.parquet"), Path("data/queries.parquet")
RUN, VECTORS = Path("data/dense_run.parquet"), Path("data/dense_vectors.parquet")
METRICS = Path("metrics/retrieve_dense.json")

INPUTS, OUTPUTS, PARAMS = (CORPUS, QUERIES), (RUN, VECTORS, METRICS), (dense.DenseParams,)
HOW = (engine.ScoringParams,)


def main() -> Counter[str]:
    """Run the stage; return how many vectors were reused and how many computed."""
    params, counts = dense.DenseParams.load(), Counter[str]()
    corpus, queries = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    with engine.opened(engine.ScoringParams.load()) as where:
        found = retrieval.retrieve(corpus, queries, dense.DenseTeacher(params, counts, where))
        exact = params.model_copy(update={"dtype": "float32"})
        agreed = agreement.check(
            found.run, corpus, queries, lambda pairs: dense.DenseTeacher(exact, counts, where).cosines(pairs), params
        )
    teacher = origins.describe(params.model)
    io.write(RUN, found.run, schemas.RUN, unit="cosine", teacher=teacher)
    parts.write(VECTORS, found.vectors, schemas.VECTORS, teacher=teacher)
    io.write_json(METRICS, runs.summarise_run(found.run, queries) | {"index_recall": found.recalls} | agreed)
    return counts


if __name__ == "__main__":
    log.run_stage("retrieve_dense", main)
