"""The student, trained or not, as an engine runs it: on one device or several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anna import store
from anna.engine import Engine, Items, Model, ModelSpec
from anna.fingerprints import content_hash, model_hash
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import CARD_FILE, CONFIG_FILE, EncoderConfig
from anna.modeling.hardware import Dtype, compute_dtype, pick_device
from anna.modeling.student import StudentParams
from anna.shards import Values


@dataclass(frozen=True)
class EncodeSettings:
    """How the student's texts are encoded."""

    max_tokens: int
    """Longest text; the prompt comes on top."""
    tokens_per_batch: int
    dtype: Dtype


def student(folder: Path, settings: EncodeSettings) -> ModelSpec:
    """Return the exported model at `folder`."""
    return _spec("student", partial(_exported, folder), partial(Encoder.load, folder), settings)


def untrained(params: StudentParams, folder: Path, settings: EncodeSettings) -> ModelSpec:
    """Return the student before training, with the prompts of the exported model at `folder`."""
    load = partial(Encoder.untrained, params, EncoderConfig.load(folder))
    return _spec("untrained", partial(_base, params), load, settings)


def embed(where: Engine, spec: ModelSpec, texts: Sequence[str], prefix: str) -> Values:
    """Return the unit vectors of `texts` after `prefix`, (N, D)."""
    batches = where.compute(spec, [(prefix, text) for text in texts])
    return store.gather(((np.asarray(batch), vectors) for batch, vectors in batches), len(texts))


def _spec(
    kind: str,
    identify: Callable[[], dict[str, Any]],
    load: Callable[[torch.dtype], Encoder],
    settings: EncodeSettings,
) -> ModelSpec:
    return ModelSpec(kind, partial(_describe, identify, settings), partial(_load, load, settings))


def _exported(folder: Path) -> dict[str, Any]:
    return {"content": content_hash(folder, CONFIG_FILE, CARD_FILE)}


def _base(params: StudentParams) -> dict[str, Any]:
    return {"content": model_hash(params.model), "layers": params.layers}


def _describe(identify: Callable[[], dict[str, Any]], settings: EncodeSettings) -> dict[str, Any]:
    limits = {"max_tokens": settings.max_tokens, "tokens_per_batch": settings.tokens_per_batch}
    return {**identify(), **limits, "dtype": str(compute_dtype(settings.dtype)), "device": pick_device()}


def _load(load: Callable[[torch.dtype], Encoder], settings: EncodeSettings) -> Model:
    encoder = load(compute_dtype(settings.dtype)).to(pick_device())
    begin = lru_cache(maxsize=1)(encoder.begin)  # one prompt at a time: of thousands of tokens it takes gigabytes

    def plan(items: Items) -> list[list[int]]:
        return encoder.plan(
            [text for _, text in items],
            prefix=items[0][0],
            max_tokens=settings.max_tokens,
            tokens_per_batch=settings.tokens_per_batch,
        )

    def compute(items: Items) -> Values:
        texts = [text for _, text in items]
        return encoder.embed(texts, prefix=items[0][0], max_tokens=settings.max_tokens, begin=begin)

    return Model(plan, compute)
