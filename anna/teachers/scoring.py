"""Scores of pairs by the reranker, each pair computed once and then found in the store."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from anna import engine, fingerprints, store
from anna.engine import Engine, Model, ModelSpec
from anna.modeling.hardware import Dtype, compute_dtype, pick_device
from anna.origins import Origin, fetch_model

Kind = Literal["query_likelihood", "cross_encoder"]

UNITS: dict[Kind, str] = {"query_likelihood": "log probability per query token", "cross_encoder": "logit"}
"""Unit of each kind's score."""

VERSIONS: dict[Kind, int] = {"query_likelihood": 3, "cross_encoder": 3}
"""Part of what scores are stored under: to be raised when a kind's code gives other scores for the same pairs."""

Pairs = Sequence[tuple[str, str]]
"""(query, passage) texts."""


def score_pairs(
    kind: Kind,
    origin: Origin,
    pairs: Pairs,
    *,
    doc_tokens: int,
    query_tokens: int,
    tokens_per_batch: int,
    dtype: Dtype,
    counts: Counter[str],
    where: Engine,
    root: Path = store.ROOT,
) -> NDArray[np.float32]:
    """Return the score of each pair, (N,); the model is loaded only for pairs that it has not seen before.

    Args:
        kind: What the model is.
        origin: Folder of safetensors, or of a causal model one GGUF file.
        pairs: Texts; equal pairs are computed once.
        doc_tokens: Longest passage.
        query_tokens: Longest query.
        tokens_per_batch: Largest number of tokens computed at once.
        dtype: What matrix products are computed in.
        counts: Gets how many scores were `reused` and how many `computed`.
        where: What computes.
        root: Folder of all stores.

    Raises:
        InputError: If the model is not of that kind.
    """
    if not pairs:
        return np.zeros(0, dtype=np.float32)
    limits = {"doc_tokens": doc_tokens, "query_tokens": query_tokens, "tokens_per_batch": tokens_per_batch}
    spec = ModelSpec(
        kind,
        partial(_describe, kind, origin, dtype, doc_tokens, query_tokens),
        partial(_load, kind, origin, dtype, **limits),
    )
    return store.values_of(pairs, lambda distinct: engine.fetch(where, spec, distinct, counts, root))[:, 0]


def _describe(kind: Kind, origin: Origin, dtype: Dtype, doc_tokens: int, query_tokens: int) -> dict[str, Any]:
    return {
        "model": fingerprints.model_hash(origin),
        "tokens": [doc_tokens, query_tokens],
        "dtype": str(compute_dtype(dtype)),
        "device": pick_device(),
        "version": VERSIONS[kind],
        "libraries": fingerprints.library_versions(),
    }


def _load(kind: Kind, origin: Origin, dtype: Dtype, **limits: int) -> Model:
    return _LOADERS[kind](fetch_model(origin), compute_dtype(dtype), **limits)


def _load_cross_encoder(
    path: Path, dtype: torch.dtype, doc_tokens: int, query_tokens: int, tokens_per_batch: int
) -> Model:
    # Each kind brings its own heavy libraries; only the one that is used is loaded.
    from anna.teachers import cross_encoder

    model = cross_encoder.load_cross_encoder(path, doc_tokens + query_tokens, dtype)
    cut = partial(cross_encoder.cut_pairs, model, doc_tokens=doc_tokens, query_tokens=query_tokens)
    return Model(
        plan=lambda pairs: cross_encoder.plan_batches(
            model, pairs, doc_tokens=doc_tokens, query_tokens=query_tokens, tokens_per_batch=tokens_per_batch
        ),
        compute=lambda pairs: cross_encoder.score_batch(model, cut(pairs), dtype)[:, None],
    )


def _load_likelihood(
    path: Path, dtype: torch.dtype, doc_tokens: int, query_tokens: int, tokens_per_batch: int
) -> Model:
    from anna.modeling.checkpoint import load_causal_lm
    from anna.teachers import likelihood_batches, query_likelihood

    model, tokenizer = load_causal_lm(path)
    model = model.to(device=pick_device(), dtype=dtype)
    return Model(
        plan=lambda pairs: likelihood_batches.plan_batches(
            tokenizer, pairs, doc_tokens=doc_tokens, query_tokens=query_tokens, tokens_per_batch=tokens_per_batch
        ),
        compute=lambda pairs: query_likelihood.score_batch(
            model, tokenizer, pairs, doc_tokens=doc_tokens, query_tokens=query_tokens
        )[:, None],
    )


_LOADERS: dict[Kind, Callable[..., Model]] = {
    "cross_encoder": _load_cross_encoder,
    "query_likelihood": _load_likelihood,
}
