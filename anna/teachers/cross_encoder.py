"""Score pairs with any sentence-transformers cross-encoder of one output."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from anna.errors import InputError, one_line
from anna.modeling.hardware import pick_device
from anna.modeling.outline import UNREADABLE, outline
from anna.teachers.padding import PADDED_TO, ROWS, TOKENISED_AT_ONCE, padded, whole_batches

Pairs = Sequence[tuple[str, str]]
"""(query, passage) texts."""


class Side(NamedTuple):
    """What is read of a text."""

    length: int
    """In tokens."""
    end: int
    """In characters."""


def load_cross_encoder(path: Path, max_tokens: int, dtype: torch.dtype = torch.float32) -> CrossEncoder:
    """Return the model at `path`: local files only, safetensors only, no code of the model's own.

    Args:
        path: Folder of the model.
        max_tokens: Longest pair, special tokens included; longer pairs lose their end.
        dtype: What its weights are kept and scores computed in, whatever they were saved in.

    Raises:
        InputError: If it does not load, lacks weights, those of its head included, or a vocabulary, takes fewer tokens,
            or gives more than one score per pair.
    """
    try:
        model = CrossEncoder(
            str(path),
            device=pick_device(),
            max_length=max_tokens,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": dtype},
        )
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a cross-encoder in safetensors ({one_line(error)}); correct rerank.model in params.yaml"
        ) from None
    # Such a model is given query and passage. sentence-transformers would make them a chat where its tokenizer has a
    # template, unless the model was saved by a version that says itself what it takes.
    if not (path / "modules.json").is_file():
        model[0].modality_config.pop("message", None)
    outline(type(model.model), path)
    longest = getattr(model.config, "max_position_embeddings", max_tokens)
    if max_tokens % PADDED_TO or max_tokens > longest:
        raise InputError(
            f"rerank.doc_tokens and .query_tokens make {max_tokens} tokens, but a cross-encoder needs a multiple of "
            f"{PADDED_TO}, and {path} takes {longest}; change one of them"
        )
    if model.num_labels != 1:
        raise InputError(f"{path} gives {model.num_labels} scores per pair, needs 1; choose another rerank.model")
    return model


class PairReader:
    """Reads queries and passages no further than their limits, as text.

    Left to itself the tokenizer cuts the longer side of a pair until both together fit, so that a passage takes what
    its query leaves over.
    """

    def __init__(self, tokenizer: Any, *, query_tokens: int, doc_tokens: int) -> None:
        """Read nothing yet.

        Args:
            tokenizer: The cross-encoder's.
            query_tokens: Longest query.
            doc_tokens: Longest passage. A pair has no more tokens than both, special ones included.
        """
        self._tokenizer, self._limits = tokenizer, (query_tokens, doc_tokens)
        self._planned: tuple[dict[str, Side], dict[str, Side]] = ({}, {})

    def plan_batches(self, pairs: Pairs, tokens_per_batch: int) -> list[list[int]]:
        """Return batches of places in `pairs`, of like length, longest first.

        Each text is tokenised once, however many pairs it is in, and what was found is kept for `cut`.

        Args:
            pairs: (query, passage) texts, not yet cut.
            tokens_per_batch: Largest number of tokens computed at once, padding included.
        """
        queries, docs = self._planned = self._read(pairs, 0), self._read(pairs, 1)
        special, longest = self._tokenizer.num_special_tokens_to_add(pair=True), sum(self._limits)
        lengths = [padded(min(queries[query].length + docs[doc].length + special, longest)) for query, doc in pairs]
        return whole_batches(lengths, tokens_per_batch)

    def cut(self, pairs: Pairs) -> list[tuple[str, str]]:
        """Return the pairs with each query and each passage cut to its limit, as text."""
        queries, docs = (
            known if all(pair[side] in known for pair in pairs) else self._read(pairs, side)
            for side, known in enumerate(self._planned)
        )
        return [(query[: queries[query].end], doc[: docs[doc].end]) for query, doc in pairs]

    def _read(self, pairs: Pairs, side: int) -> dict[str, Side]:
        texts, limit = list(dict.fromkeys(pair[side] for pair in pairs)), self._limits[side]
        options = {"add_special_tokens": False, "truncation": True, "max_length": limit}
        found: dict[str, Side] = {}
        for start in range(0, len(texts), TOKENISED_AT_ONCE):
            some = texts[start : start + TOKENISED_AT_ONCE]
            spans = self._tokenizer(some, **options, return_offsets_mapping=True)["offset_mapping"]
            for text, own in zip(some, spans, strict=True):
                found[text] = Side(len(own), own[-1][1] if len(own) == limit else len(text))
        return found


def score_batch(model: CrossEncoder, pairs: Pairs) -> NDArray[np.float32]:
    """Return the logit of each (query, passage) pair, unbounded: no sigmoid, which would flatten the best ones.

    Args:
        model: As `load_cross_encoder` gives it.
        pairs: Cut already.
    """
    filled = [*pairs, *[pairs[0]] * (-len(pairs) % ROWS)]
    scores = model.predict(
        filled,
        batch_size=len(filled),
        activation_fn=torch.nn.Identity(),
        show_progress_bar=False,
        convert_to_numpy=True,
        processing_kwargs={"text": {"pad_to_multiple_of": PADDED_TO}},
    )
    return np.asarray(scores, dtype=np.float32).reshape(-1)[: len(pairs)]
