"""The vectors of texts by any sentence-transformers model, equal to the last bit in whatever batch."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from anna.errors import InputError, one_line
from anna.modeling.batching import token_batches
from anna.modeling.hardware import pick_device
from anna.modeling.outline import POOLER, UNREADABLE, outline
from anna.teachers.padding import PADDED_TO, count_tokens, padded

VERSION = 4
"""Part of what vectors are stored under: to be raised when this module gives other vectors for the same texts."""

MODULES = "modules.json"
"""By which sentence-transformers knows how a vector is pooled; without it, it takes the mean of any model's."""


def load_model(path: Path, max_tokens: int, dtype: torch.dtype = torch.float32) -> SentenceTransformer:
    """Return the model at `path`: local files only, safetensors only, no code of the model's own.

    Args:
        path: Folder of the model.
        max_tokens: Longest text, special tokens included; a multiple of `PADDED_TO`.
        dtype: What its weights are kept and vectors computed in, whatever they were saved in.

    Raises:
        InputError: If it does not say how it pools, does not load, lacks weights or words, or takes fewer tokens.
    """
    check_modules(path)
    try:
        model = SentenceTransformer(
            str(path),
            device=pick_device(),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": dtype},
        )
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a sentence-transformers model in safetensors ({one_line(error)}); correct "
            "retrieve_dense.model in params.yaml"
        ) from None
    backbone = getattr(model[0], "auto_model", None)
    if isinstance(backbone, PreTrainedModel):
        outline(type(backbone), Path(backbone.name_or_path), spare=POOLER)
    longest = model.max_seq_length
    if longest is not None and max_tokens > longest:
        raise InputError(f"retrieve_dense.max_tokens is {max_tokens}, but {path} takes {longest}; lower it")
    model.max_seq_length = max_tokens
    model.default_prompt_name = None  # else an empty prompt in params.yaml would mean that one
    _check_last_token(model, path)
    return model.eval()


def check_modules(path: Path) -> None:
    """Refuse a folder that does not say how its vectors are pooled, or whose vectors are not a transformer's.

    Tables of vectors (`StaticEmbedding`) have no longest text and no padding, which batches are planned by.
    """
    if not (path / MODULES).is_file():
        raise InputError(
            f"{path} has no {MODULES}, which says how its vectors are pooled; choose a model for sentence-transformers "
            "as retrieve_dense.model, or save one there by that library with the pooling that it was trained for"
        )
    try:
        kind = json.loads((path / MODULES).read_text(encoding="utf-8"))[0]["type"].rpartition(".")[2]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a sentence-transformers model ({MODULES}: {one_line(error)}); correct retrieve_dense.model "
            "in params.yaml"
        ) from None
    if kind != "Transformer":
        raise InputError(
            f"{path} begins with a {kind}, expected a Transformer; choose another model as retrieve_dense.model"
        )


def _check_last_token(model: SentenceTransformer, path: Path) -> None:
    """Refuse a model that is read at EOS, as its tokenizer's settings say, but gets texts that end in another token.

    transformers 5 no longer heeds `add_eos_token`, and e5-mistral was read at the wrong token (mteb #5237).
    """
    settings = path / "tokenizer_config.json"
    if not any("lasttoken" in getattr(module, "pooling_mode", ()) for module in model) or not settings.is_file():
        return
    tokenizer = model.tokenizer
    if not json.loads(settings.read_text(encoding="utf-8")).get("add_eos_token"):
        return
    for text in ("a", "a " * model.max_seq_length):
        last = tokenizer(text, truncation=True, max_length=model.max_seq_length)["input_ids"][-1]
        if last != tokenizer.eos_token_id:
            raise InputError(
                f"{path} reads a text at its last token, which by its tokenizer_config.json is EOS "
                f"({tokenizer.eos_token_id}), but this transformers makes it {last}; save its tokenizer with a "
                "post-processor that appends EOS, or choose another retrieve_dense.model"
            )


def plan_batches(
    model: SentenceTransformer, texts: Sequence[str], prompt: str, tokens_per_batch: int
) -> list[list[int]]:
    """Return batches of places in `texts`, of like length, longest first.

    Args:
        model: As `load_model` gives it.
        texts: Bare texts.
        prompt: Put before each text.
        tokens_per_batch: Largest number of tokens computed at once, padding included.
    """
    longest = model.max_seq_length
    lengths = count_tokens(model.tokenizer, texts, prefix=prompt, truncation=True, max_length=longest)
    return token_batches([padded(length) for length in lengths], tokens_per_batch)


def encode_batch(model: SentenceTransformer, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
    """Return the unit vectors of `texts`, (N, D), computed in one batch.

    Args:
        model: As `load_model` gives it.
        texts: Bare texts.
        prompt: Put before each text.
    """
    vectors = model.encode(
        list(texts),
        prompt=prompt or None,
        batch_size=len(texts),
        show_progress_bar=False,
        processing_kwargs={"text": {"pad_to_multiple_of": PADDED_TO}},
    )
    exact = np.asarray(vectors, dtype=np.float64)
    return np.asarray(exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12), dtype=np.float32)
