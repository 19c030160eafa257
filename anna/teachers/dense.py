"""Dense retrieval with any sentence-transformers model: exact, within each task."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field
from sentence_transformers import SentenceTransformer

from anna import log, schemas
from anna.errors import InputError
from anna.modeling.batching import token_batches
from anna.modeling.hardware import compute_dtype, pick_device
from anna.origins import Origin
from anna.params import Params
from anna.teachers.runs import collections, join_runs, same_text, to_run
from anna.teachers.topk import nearest


class DenseParams(Params):
    """The dense retriever; evaluation uses the same model for its baseline."""

    section: ClassVar[str] = "retrieve_dense"

    model: Origin
    """A folder that sentence-transformers loads, weights in safetensors."""
    query_prompt: str
    """Put before each query, as the model's authors say; "" for none."""
    doc_prompt: str = ""
    """Put before each document."""
    max_tokens: int = Field(gt=2)
    """Longer texts lose their end, prompt and special tokens included."""
    tokens_per_batch: int = Field(default=8192, gt=0)
    """Largest number of tokens computed at once, padding included."""
    depth: int = Field(gt=0)
    """Candidates kept per query."""


def load_model(path: Path, max_tokens: int) -> SentenceTransformer:
    """Return the model at `path`: local files only, safetensors only, no code of the model's own.

    Raises:
        InputError: If it does not load, or takes fewer tokens than `max_tokens`.
    """
    try:
        model = SentenceTransformer(
            str(path),
            device=pick_device(),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is not a sentence-transformers model in safetensors ({' '.join(str(error).split())}); correct "
            "retrieve_dense.model in params.yaml"
        ) from None
    longest = model.max_seq_length
    if longest is not None and max_tokens > longest:
        raise InputError(f"retrieve_dense.max_tokens is {max_tokens}, but {path} takes {longest}; lower it")
    model.max_seq_length = max_tokens
    return model.eval()


def encode_texts(
    model: SentenceTransformer, texts: Sequence[str], *, prompt: str, tokens_per_batch: int
) -> NDArray[np.float32]:
    """Return the unit vectors of `texts`, (N, D), in float32.

    Equal texts are computed once, in length-sorted batches.

    Args:
        model: As `load_model` gives it.
        texts: Bare texts.
        prompt: Put before each text.
        tokens_per_batch: Largest number of tokens computed at once, padding included.
    """
    unique = list(dict.fromkeys(texts))
    if not unique:
        return np.zeros((0, model.get_embedding_dimension() or 0), dtype=np.float32)
    limit = model.max_seq_length or tokens_per_batch
    rows = model.tokenizer([prompt + text for text in unique], truncation=True, max_length=limit)["input_ids"]
    batches = token_batches([len(row) for row in rows], tokens_per_batch)
    dtype = compute_dtype("auto")
    exact = np.empty((len(unique), model.get_embedding_dimension() or 0), dtype=np.float64)
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        for batch in log.progress(batches, unit="batch", desc="dense encoding"):
            part = [unique[index] for index in batch]
            exact[batch] = model.encode(part, prompt=prompt or None, batch_size=len(part), show_progress_bar=False)
    exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)
    place = {text: index for index, text in enumerate(unique)}
    return np.asarray(exact[[place[text] for text in texts]], dtype=np.float32)


def retrieve(
    corpus: pa.Table,
    queries: pa.Table,
    path: Path,
    *,
    query_prompt: str,
    doc_prompt: str,
    max_tokens: int,
    tokens_per_batch: int,
    depth: int,
) -> tuple[pa.Table, pa.Table]:
    """Return table RUN of every query over the documents of its task, by cosine, and table VECTORS of all of them.

    Args:
        corpus: Table CORPUS.
        queries: Table QUERIES.
        path: Folder of the model.
        query_prompt: Put before each query.
        doc_prompt: Put before each document.
        max_tokens: Longest text, in tokens.
        tokens_per_batch: Largest number of tokens computed at once.
        depth: Candidates per query; fewer where the task has fewer documents.

    Raises:
        InputError: If a task has fewer than two documents, or the model does not load.
    """
    model = load_model(path, max_tokens)
    runs, ids, vectors = [], [], []
    for own in collections(corpus, queries):
        docs = encode_texts(model, own.docs, prompt=doc_prompt, tokens_per_batch=tokens_per_batch)
        asked = encode_texts(model, own.queries, prompt=query_prompt, tokens_per_batch=tokens_per_batch)
        found = nearest(asked, docs, depth, same_text(own.queries, own.docs))
        runs.append(to_run(own.query_ids, own.doc_ids, *found))
        ids += [*own.doc_ids, *own.query_ids]
        vectors += [docs, asked]
    return join_runs(runs), to_vectors(ids, np.concatenate(vectors))


def to_vectors(ids: Sequence[str], vectors_ND: NDArray[np.float32]) -> pa.Table:
    """Return table VECTORS of the rows of `vectors_ND`."""
    offsets = np.arange(len(ids) + 1) * vectors_ND.shape[1]
    kind = schemas.VECTORS.field("vector").type
    rows = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(vectors_ND.ravel()), type=kind)
    return pa.table({"id": pa.array(ids, pa.string()), "vector": rows})
