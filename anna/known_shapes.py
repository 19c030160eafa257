"""The shape of a model without loading or fetching it: from its config.json where it is here, else from a table."""

from pathlib import Path

from anna import io
from anna.errors import InputError
from anna.origins import Origin, describe, local_folder
from anna.shapes import Shape

_SMOLLM2_135M = Shape(30, 576, 1536, 9, 3, 64, 49152)
_BERT_BASE = Shape(12, 768, 3072, 12, 12, 64, 30522, is_decoder=False, positions=512 + 2)
_XLM_R_LARGE = Shape(24, 1024, 4096, 16, 16, 64, 250002, is_decoder=False, positions=8194 + 1)

KNOWN: dict[str, Shape] = {
    "smollm2-135m": _SMOLLM2_135M,
    "smollm2-360m": Shape(32, 960, 2560, 15, 5, 64, 49152),
    "smollm2-1.7b": Shape(24, 2048, 8192, 32, 32, 64, 49152),
    "mistral-7b": Shape(32, 4096, 14336, 32, 8, 128, 32000, is_tied=False),
    "qwen3-embedding-0.6b": Shape(28, 1024, 3072, 16, 8, 128, 151669, has_head_norm=True),
    "qwen3-embedding-4b": Shape(36, 2560, 9728, 32, 8, 128, 151665, has_head_norm=True),
    "qwen3-embedding-8b": Shape(36, 4096, 12288, 32, 8, 128, 151665, has_head_norm=True, is_tied=False),
    "qwen3-reranker-0.6b": Shape(28, 1024, 3072, 16, 8, 128, 151669, has_head_norm=True),
    "qwen3-reranker-4b": Shape(36, 2560, 9728, 32, 8, 128, 151669, has_head_norm=True),
    "qwen3-0.6b": Shape(28, 1024, 3072, 16, 8, 128, 151936, has_head_norm=True),
    "qwen3-1.7b": Shape(28, 2048, 6144, 16, 8, 128, 151936, has_head_norm=True),
    "qwen3-4b": Shape(36, 2560, 9728, 32, 8, 128, 151936, has_head_norm=True),
    "qwen3-8b": Shape(36, 4096, 12288, 32, 8, 128, 151936, has_head_norm=True, is_tied=False),
    "qwen2.5-0.5b": Shape(24, 896, 4864, 14, 2, 64, 151936, has_key_bias=True),
    "qwen2.5-1.5b": Shape(28, 1536, 8960, 12, 2, 128, 151936, has_key_bias=True),
    "llama-3.1-8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, is_tied=False),
    "all-minilm-l6-v2": Shape(6, 384, 1536, 12, 12, 32, 30522, is_decoder=False, positions=512 + 2),
    "ms-marco-minilm-l6-v2": Shape(6, 384, 1536, 12, 12, 32, 30522, is_decoder=False, positions=512 + 2),
    "bge-small-en-v1.5": Shape(12, 384, 1536, 12, 12, 32, 30522, is_decoder=False, positions=512 + 2),
    "bge-base-en-v1.5": _BERT_BASE,
    "e5-base-v2": _BERT_BASE,
    "snowflake-arctic-embed-m-v1.5": _BERT_BASE,
    "bge-reranker-base": _BERT_BASE._replace(vocabulary=250002, positions=514 + 1),
    "bge-m3": _XLM_R_LARGE,
    "bge-reranker-v2-m3": _XLM_R_LARGE,
    "snowflake-arctic-embed-l-v2": _XLM_R_LARGE,
    "multilingual-e5-large": _XLM_R_LARGE._replace(positions=514 + 1),
}
"""By a part of the model's name, in lower case: the sizes that the model's own config.json has on the hub."""

_REMEDY = "put the model's own config.json there"


def find_shape(origin: Origin, place: str) -> Shape:
    """Return the shape of a model; nothing is fetched.

    Args:
        origin: Where the model comes from.
        place: Its key in params.yaml, for the error.

    Raises:
        InputError: If it is not here and in no table, or its form is not known.
    """
    path = _config(origin)
    if path is not None:
        try:
            return Shape.of(io.read_json(path, _REMEDY))
        except KeyError as missing:
            raise InputError(
                f"{path}: no form of transformer is known with {missing}, so {place} cannot be planned for; choose "
                "another model, or run without a plan"
            ) from None
    shape = _in_table(origin)
    if shape is None:
        raise InputError(
            f"{place}: {describe(origin)} is not on this machine and its sizes are not known; fetch it first, or add "
            "them to anna/known_shapes.py"
        )
    return shape


def known_shape(origin: Origin) -> Shape | None:
    """Return the shape of a model that is on this machine or in the table, without fetching it.

    None: it is in neither, or the one on this machine is of no known form.
    """
    path = _config(origin)
    try:
        return Shape.of(io.read_json(path, _REMEDY)) if path else _in_table(origin)
    except KeyError:
        return None


def _in_table(origin: Origin) -> Shape | None:
    name = describe(origin).lower().replace("_", "-")
    found = [known for known in KNOWN if known in name]
    return KNOWN[max(found, key=len)] if found else None


def _config(origin: Origin) -> Path | None:
    """Return the model's config.json if it is on this machine."""
    folder = local_folder(origin)
    path = folder / "config.json" if folder else None
    return path if path and path.is_file() else None
