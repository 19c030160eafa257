"""Score pairs with any sentence-transformers cross-encoder of one output."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from anna import log
from anna.errors import InputError
from anna.modeling.hardware import compute_dtype, pick_device

PAIRS_PER_BLOCK = 4096
"""Pairs between two lines of progress; the library sorts by length within a block."""


def load_cross_encoder(path: Path, max_tokens: int) -> CrossEncoder:
    """Return the model at `path`: local files only, safetensors only, no code of the model's own.

    Args:
        path: Folder of the model.
        max_tokens: Longest pair, special tokens included; longer pairs lose their end.

    Raises:
        InputError: If it does not load, or gives more than one score per pair.
    """
    try:
        model = CrossEncoder(
            str(path),
            device=pick_device(),
            max_length=max_tokens,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is not a cross-encoder in safetensors ({' '.join(str(error).split())}); correct rerank.model in "
            "params.yaml"
        ) from None
    if model.num_labels != 1:
        raise InputError(f"{path} gives {model.num_labels} scores per pair, needs 1; choose another rerank.model")
    return model


def score_pairs(
    model: CrossEncoder, pairs: Sequence[tuple[str, str]], *, max_tokens: int, tokens_per_batch: int
) -> NDArray[np.float32]:
    """Return the logit of each (query, passage) pair, unbounded: no sigmoid, which would flatten the best ones.

    Args:
        model: As `load_cross_encoder` gives it.
        pairs: (query, passage) texts.
        max_tokens: Longest pair.
        tokens_per_batch: Largest number of tokens computed at once, padding included.
    """
    dtype = compute_dtype("auto")
    parts = [np.zeros(0, dtype=np.float32)]
    blocks = range(0, len(pairs), PAIRS_PER_BLOCK)
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        for start in log.progress(blocks, unit="block", desc="cross-encoder"):
            scores = model.predict(
                list(pairs[start : start + PAIRS_PER_BLOCK]),
                batch_size=max(1, tokens_per_batch // max_tokens),
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            parts.append(np.asarray(scores, dtype=np.float32).reshape(-1))
    return np.concatenate(parts)
