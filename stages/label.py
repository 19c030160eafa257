"""Fuse the three teachers' scores per query and turn them into soft labels.

Seconds on CPU: change `label.*` freely, no teacher is run again. Refuses soft labels that are one-hot or uniform.
"""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from anna import io, log, parts, schemas
from anna.params import Params, Strict, recorded
from anna.teachers import blocks, labelling

CORPUS, QUERIES, QRELS = Path("data/corpus.parquet"), Path("data/queries.parquet"), Path("data/qrels.parquet")
BM25_RUN, DENSE_RUN, RERANKER_RUN = (
    Path("data/bm25_run.parquet"),
    Path("data/dense_run.parquet"),
    Path("data/reranker_run.parquet"),
)
LABELS, METRICS = Path("data/labels.parquet"), Path("metrics/label.json")


class Weights(Strict):
    """Weight of each teacher's z-score in the fused score."""

    bm25: float = Field(ge=0)
    """Of BM25."""
    dense: float = Field(ge=0)
    """Of the dense retriever's cosine."""
    reranker: float = Field(ge=0)
    """Of the reranker; a query that was not reranked is fused from the other two."""

    @model_validator(mode="after")
    def _some_teacher_counts(self) -> Self:
        if not (self.bm25 or self.dense):
            raise ValueError("bm25 and dense are both 0, so queries that are not reranked have no teacher; raise one")
        return self


class LabelParams(Params):
    """Fusion and soft labels."""

    section: ClassVar[str] = "label"

    weights: Weights
    """Of the teachers."""
    teacher_temperature: float = Field(gt=0)
    """Divides the fused score (a z-score) in the softmax: small is near one-hot, large near uniform."""
    min_entropy_share: float = Field(ge=0, le=1)
    """Labels whose mean entropy is a smaller share of log(number of candidates) are refused as one-hot."""
    max_entropy_share: float = Field(ge=0, le=1)
    """Labels whose mean entropy is a larger share are refused as uniform."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min_entropy_share > self.max_entropy_share:
            raise ValueError("min_entropy_share is above max_entropy_share, so nothing would pass; swap them")
        return self


SOURCES = {
    "qrels": (QRELS, schemas.QRELS),
    "bm25": (BM25_RUN, schemas.RUN),
    "dense": (DENSE_RUN, schemas.RUN),
    "reranker": (RERANKER_RUN, schemas.RUN),
}
"""What is read in blocks of queries."""

INPUTS, OUTPUTS = (CORPUS, QUERIES, QRELS, BM25_RUN, DENSE_RUN, RERANKER_RUN), (LABELS, METRICS)
BM25 = recorded("retrieve_bm25")
PARAMS = (LabelParams, BM25)


def main() -> None:
    """Run the stage."""
    params = LabelParams.load()
    weights, temperature = params.weights.model_dump(), params.teacher_temperature
    queries = io.read(QUERIES, schemas.QUERIES)
    corpus = io.read(CORPUS, schemas.CORPUS, without=["text"])
    labeller = labelling.Labeller(
        corpus,
        queries,
        weights=weights,
        teacher_temperature=temperature,
        bm25_depth=BM25.load().values()["depth"],
    )
    labels = labelling.label_all(
        labeller,
        blocks.query_blocks(queries, SOURCES),
        min_entropy_share=params.min_entropy_share,
        max_entropy_share=params.max_entropy_share,
    )
    parts.write(LABELS, parts.ahead(labels), schemas.LABELS, weights=weights, teacher_temperature=temperature)
    io.write_json(METRICS, labeller.metrics())


if __name__ == "__main__":
    log.run_stage("label", main)
