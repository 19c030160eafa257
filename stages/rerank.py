"""Score each query's best candidates with the most expensive teacher, a reranker.

Minutes on CPU by default, many GPU hours at the paper's size: cost grows with `depth`, `queries_per_task`, the token
limits and the model. Queries that are not chosen are labelled from the two retrievers. Scores are kept in `runs/store`,
so a killed run goes on where it was, and only new pairs cost anything: `depth`, `queries_per_task` and
`tokens_per_batch` are safe to change; the model, its kind, `dtype` and the token limits score again.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from anna import engine, io, log, origins, schemas
from anna.modeling.hardware import Dtype
from anna.origins import Origin
from anna.params import Params
from anna.teachers import agreement, blocks, reranker, scoring
from anna.teachers.padding import PADDED_TO
from anna.teachers.pairs import texts_of

CORPUS, QUERIES, QRELS = Path("data/corpus.parquet"), Path("data/queries.parquet"), Path("data/qrels.parquet")
BM25_RUN, DENSE_RUN = Path("data/bm25_run.parquet"), Path("data/dense_run.parquet")
RUN, METRICS = Path("data/reranker_run.parquet"), Path("metrics/rerank.json")


class RerankParams(Params):
    """The reranker and how much it reads."""

    section: ClassVar[str] = "rerank"

    kind: scoring.Kind
    """query_likelihood: log P(query given passage) under a causal model. cross_encoder: a sentence-transformers one."""
    model: Origin
    """Folder with safetensors; of a causal model also one GGUF file."""
    depth: int = Field(gt=0)
    """Candidates scored per query, best of both runs first; labelled positives always."""
    queries_per_task: int | None = Field(gt=0)
    """Queries of each task that are reranked, the first by hash; null: all."""
    doc_tokens: int = Field(gt=0)
    """Passages are cut to this many tokens."""
    query_tokens: int = Field(gt=0)
    """Queries are cut to this many tokens. Of a cross-encoder both together, special tokens among them, are a multiple
    of 16."""
    tokens_per_batch: int = Field(gt=0)
    """Largest number of tokens computed at once; scores change by rounding only."""
    dtype: Dtype
    """What matrix products are computed in; see `anna.modeling.hardware`."""
    check_queries: int = Field(ge=0)
    """Queries of each task, the first by hash, whose candidates are ranked in float32, too, to compare the two orders;
    0: none. Where all is computed in float32, nothing is compared."""
    min_spearman: float = Field(ge=-1, le=1)
    """Least mean rank correlation of the two orders; below it the stage fails."""

    @model_validator(mode="after")
    def _pads_evenly(self) -> Self:
        both = self.doc_tokens + self.query_tokens
        if self.kind == "cross_encoder" and both % PADDED_TO:
            raise ValueError(
                f"doc_tokens and query_tokens make {both} tokens, but a cross-encoder needs a multiple of {PADDED_TO}; "
                "change one of them"
            )
        return self


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
    pairs = reranker.choose_candidates(
        queries,
        blocks.query_blocks(queries, SOURCES),
        depth=params.depth,
        queries_per_task=params.queries_per_task,
    )
    with engine.opened(engine.ScoringParams.load()) as where:
        score = partial(
            scoring.score_pairs,
            params.kind,
            params.model,
            doc_tokens=params.doc_tokens,
            query_tokens=params.query_tokens,
            tokens_per_batch=params.tokens_per_batch,
            counts=counts,
            where=where,
        )
        run = reranker.to_run(pairs, score(texts_of(pairs, corpus, queries), dtype=params.dtype))
        agreed = agreement.check(
            run,
            corpus,
            queries,
            partial(score, dtype="float32"),
            dtype=params.dtype,
            num_queries=params.check_queries,
            least=params.min_spearman,
            section=params.section,
        )
    io.write(RUN, run, schemas.RUN, unit=scoring.UNITS[params.kind], teacher=origins.describe(params.model))
    io.write_json(METRICS, reranker.summarise(run, queries) | agreed)
    return counts


if __name__ == "__main__":
    log.run_stage("rerank", main)
