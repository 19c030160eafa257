"""The reranker: a model and the store of its scores, so that each pair is computed once."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from anna import engine, fingerprints, store
from anna.engine import Engine, Items, Model
from anna.errors import InputError
from anna.modeling.hardware import Dtype, compute_dtype, pick_device
from anna.origins import Origin, fetch_model
from anna.params import Params
from anna.teachers.padding import PADDED_TO

Kind = Literal["query_likelihood", "cross_encoder"]

UNITS: dict[Kind, str] = {"query_likelihood": "log probability per query token", "cross_encoder": "logit"}
"""Unit of each kind's score."""

VERSIONS: dict[Kind, int] = {"query_likelihood": 4, "cross_encoder": 5}
"""Part of what scores are stored under: to be raised when a kind's code gives other scores for the same pairs."""


class RerankParams(Params):
    """The reranker and how much it reads."""

    section: ClassVar[str] = "rerank"

    kind: Kind
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
    """What weights are kept and scores computed in; see `anna.modeling.hardware`."""
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


class Reranker:
    """Gives the score of any pair, and loads its model only for pairs that it has not seen before."""

    def __init__(self, params: RerankParams, counts: Counter[str], where: Engine, root: Path = store.ROOT) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            params: Model and limits.
            counts: Gets how many scores were `reused` and how many `computed`.
            where: What computes.
            root: Folder of all stores.
        """
        self._spec = engine.ModelSpec(params.kind, partial(_describe, params), partial(_load, params))
        self._counts, self._engine, self._root = counts, where, root

    def score(self, pairs: Items) -> NDArray[np.float32]:
        """Return the score of each (query, passage), (N,); equal pairs are computed once.

        Raises:
            InputError: If the model is not of its kind.
        """
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        return store.values_of(pairs, self._fetch)[:, 0]

    def _fetch(self, pairs: Items) -> store.Parts:
        return engine.fetch(self._engine, self._spec, pairs, self._counts, self._root)


def _describe(params: RerankParams) -> dict[str, Any]:
    return {
        "model": fingerprints.model_hash(params.model),
        "tokens": [params.doc_tokens, params.query_tokens],
        "dtype": str(compute_dtype(params.dtype)),
        "device": pick_device(),
        "version": VERSIONS[params.kind],
        "libraries": fingerprints.library_versions(),
    }


def _load(params: RerankParams) -> Model:
    return _LOADERS[params.kind](params)


def _load_cross_encoder(params: RerankParams) -> Model:
    # Each kind brings its own heavy libraries; only the one that is used is loaded.
    from anna.teachers import cross_encoder

    limits = _limits(params)
    model = cross_encoder.load_cross_encoder(
        fetch_model(params.model), sum(limits.values()), compute_dtype(params.dtype)
    )
    reader = cross_encoder.PairReader(model.tokenizer, **limits)
    return Model(
        plan=lambda pairs: reader.plan_batches(pairs, params.tokens_per_batch),
        compute=lambda pairs: cross_encoder.score_batch(model, reader.cut(pairs))[:, None],
    )


def _load_likelihood(params: RerankParams) -> Model:
    from anna.modeling.checkpoint import load_causal_lm
    from anna.teachers import likelihood_batches, query_likelihood

    limits = _limits(params)
    # Not by `model.to`, which would round the angles that positions are turned by, too.
    model, tokenizer = load_causal_lm(fetch_model(params.model), weight_dtype=compute_dtype(params.dtype))
    model = model.to(pick_device())
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and params.doc_tokens + params.query_tokens > longest:
        raise InputError(
            f"rerank.doc_tokens and rerank.query_tokens are {params.doc_tokens} and {params.query_tokens}, but the "
            f"model has {longest} positions; lower them"
        )
    return Model(
        plan=lambda pairs: likelihood_batches.plan_batches(
            tokenizer, pairs, **limits, tokens_per_batch=params.tokens_per_batch
        ),
        compute=lambda pairs: query_likelihood.score_batch(model, tokenizer, pairs, **limits)[:, None],
    )


def _limits(params: RerankParams) -> dict[str, int]:
    return {"doc_tokens": params.doc_tokens, "query_tokens": params.query_tokens}


_LOADERS: dict[Kind, Callable[[RerankParams], Model]] = {
    "cross_encoder": _load_cross_encoder,
    "query_likelihood": _load_likelihood,
}
