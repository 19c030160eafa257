"""Score pairs with any sentence-transformers cross-encoder of one output."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from anna.errors import InputError
from anna.modeling.hardware import pick_device
from anna.teachers.padding import PADDED_TO, ROWS, count_each, padded, whole_batches


def load_cross_encoder(path: Path, max_tokens: int, dtype: torch.dtype = torch.float32) -> CrossEncoder:
    """Return the model at `path`: local files only, safetensors only, no code of the model's own.

    Args:
        path: Folder of the model.
        max_tokens: Longest pair, special tokens included; longer pairs lose their end.
        dtype: What it is to compute in. For float32 its weights become float32, whatever they were saved in.

    Raises:
        InputError: If it does not load, takes fewer tokens, or gives more than one score per pair.
    """
    try:
        model = CrossEncoder(
            str(path),
            device=pick_device(),
            max_length=max_tokens,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32 if dtype == torch.float32 else "auto"},
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is not a cross-encoder in safetensors ({' '.join(str(error).split())}); correct rerank.model in "
            "params.yaml"
        ) from None
    longest = getattr(model.config, "max_position_embeddings", max_tokens)
    if max_tokens % PADDED_TO or max_tokens > longest:
        raise InputError(
            f"rerank.doc_tokens and .query_tokens make {max_tokens} tokens, but a cross-encoder needs a multiple of "
            f"{PADDED_TO}, and {path} takes {longest}; change one of them"
        )
    if model.num_labels != 1:
        raise InputError(f"{path} gives {model.num_labels} scores per pair, needs 1; choose another rerank.model")
    return model


def cut_pairs(
    model: CrossEncoder, pairs: Sequence[tuple[str, str]], *, doc_tokens: int, query_tokens: int
) -> list[tuple[str, str]]:
    """Return the pairs with each query and each passage cut to so many tokens, as text.

    Left to itself the tokenizer cuts the longer side until both together fit, so that a passage takes what its query
    leaves over.

    Args:
        model: As `load_cross_encoder` gives it.
        pairs: (query, passage) texts.
        doc_tokens: Longest passage.
        query_tokens: Longest query.
    """
    sides = ([pair[side] for pair in pairs] for side in (0, 1))
    queries, docs = (
        _cut(model, list(side), limit) for side, limit in zip(sides, (query_tokens, doc_tokens), strict=True)
    )
    return list(zip(queries, docs, strict=True))


def _cut(model: CrossEncoder, texts: list[str], max_tokens: int) -> list[str]:
    found = model.tokenizer(
        texts, add_special_tokens=False, truncation=True, max_length=max_tokens, return_offsets_mapping=True
    )
    ends = [offsets[-1][1] if len(offsets) == max_tokens else None for offsets in found["offset_mapping"]]
    return [text[:end] for text, end in zip(texts, ends, strict=True)]


def plan_batches(
    model: CrossEncoder,
    pairs: Sequence[tuple[str, str]],
    *,
    doc_tokens: int,
    query_tokens: int,
    tokens_per_batch: int,
) -> list[list[int]]:
    """Return batches of places in `pairs`, of like length, longest first.

    Each text is tokenised once, however many pairs it is in.

    Args:
        model: As `load_cross_encoder` gives it.
        pairs: (query, passage) texts, not yet cut.
        doc_tokens: Passages will be cut to this many tokens.
        query_tokens: Queries will be cut to this many tokens. A pair has no more than both, special tokens included.
        tokens_per_batch: Largest number of tokens computed at once, padding included.
    """
    queries = count_each(model.tokenizer, (query for query, _ in pairs), query_tokens)
    docs = count_each(model.tokenizer, (doc for _, doc in pairs), doc_tokens)
    special, longest = model.tokenizer.num_special_tokens_to_add(pair=True), doc_tokens + query_tokens
    lengths = [padded(min(queries[query] + docs[doc] + special, longest)) for query, doc in pairs]
    return whole_batches(lengths, tokens_per_batch)


def score_batch(
    model: CrossEncoder, pairs: Sequence[tuple[str, str]], dtype: torch.dtype = torch.float32
) -> NDArray[np.float32]:
    """Return the logit of each (query, passage) pair, unbounded: no sigmoid, which would flatten the best ones.

    Args:
        model: As `load_cross_encoder` gives it.
        pairs: (query, passage) texts.
        dtype: What matrix products are computed in.
    """
    filled = [*pairs, *[pairs[0]] * (-len(pairs) % ROWS)]
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        scores = model.predict(
            filled,
            batch_size=len(filled),
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
            convert_to_numpy=True,
            processing_kwargs={"text": {"pad_to_multiple_of": PADDED_TO}},
        )
    return np.asarray(scores, dtype=np.float32).reshape(-1)[: len(pairs)]
