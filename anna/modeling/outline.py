"""Whether a folder holds a whole model, found without reading its weights.

transformers draws at random what a checkpoint lacks, and makes a tokenizer of special tokens alone where the files of
one are missing; both with a warning at most. A teacher would score, and a student start, by noise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from anna.errors import InputError, one_line

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
"""What loading a folder raises that is no model, or a damaged one."""

HEAD = ("lm_head.",)
"""Begins the names of a language head's weights."""

POOLER = ("pooler.",)
"""Begins those of what BERT makes of its first token, which many checkpoints lack."""


def outline(kind: Any, folder: Path, *, spare: tuple[str, ...] = ()) -> PreTrainedModel:
    """Return the model in `folder` without values for its weights, once it is sure that the folder has all of them.

    Args:
        kind: Class of transformers, or one of its `Auto` classes.
        folder: With config.json, safetensors and a tokenizer.
        spare: Beginnings of names of weights that may be missing, as nothing reads them.

    Raises:
        InputError: If there is no such model, a file is damaged, or weights or the vocabulary are missing.
    """
    try:
        with _quiet():
            model, found = kind.from_pretrained(
                folder, device_map="meta", output_loading_info=True, use_safetensors=True, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except UNREADABLE as error:
        raise InputError(
            f"{folder} holds no model of safetensors and tokenizer.json ({one_line(error)}); correct it"
        ) from None
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(spare))
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} weights of a {type(model).__name__} ({missing[0]} first), which would be "
            "drawn at random; fetch it again, or choose a model of that kind"
        )
    needed = getattr(model.config, "vocab_size", 0)
    if len(tokenizer) < needed / 2:
        raise InputError(
            f"{folder} has a tokenizer of {len(tokenizer)} tokens for a model of {needed}; add its tokenizer.json"
        )
    typed: PreTrainedModel = model
    return typed


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and its report of missing weights from standard error."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
