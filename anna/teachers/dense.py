"""The dense teacher: a model and the store of its vectors, so that each text is computed once."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from anna import engine, fingerprints, store
from anna.engine import Engine, Items, Model
from anna.errors import InputError
from anna.modeling.hardware import Dtype, compute_dtype, pick_device
from anna.origins import Origin, fetch_model
from anna.params import Params, Strict
from anna.teachers import bi_encoder
from anna.teachers.padding import PADDED_TO

CODEBOOK = 256
"""Entries of a codebook of one byte, and so the fewest vectors that it can be learnt from."""


class IndexParams(Strict):
    """How collections are searched that are too large to compare every document: FAISS IVF-PQ, then exact scores."""

    min_docs: int = Field(gt=0)
    """Documents of a task from which it is searched so; below, every document is compared."""
    nlist: int | None = Field(gt=0)
    """Lists that the documents are divided into; null: four times the square root of their number, a
    fortieth of it at most."""
    m: int = Field(gt=0)
    """Bytes per document in memory; must divide the dimensions of the model."""
    nprobe: int = Field(gt=0)
    """Lists searched per query: more finds more, and is slower."""
    rescore: int = Field(gt=0)
    """Candidates per query that are scored exactly: more finds more, and is slower."""
    min_recall: float = Field(ge=0, le=1)
    """Share of the results of exact search that must be found; below it the stage fails."""
    sample: int = Field(gt=0)
    """Queries of each such task on which that share is measured."""

    @model_validator(mode="after")
    def _can_be_learnt(self) -> Self:
        least = max(CODEBOOK, self.nlist or 0)
        if self.min_docs < least:
            raise ValueError(
                f"min_docs is {self.min_docs}, but an index is learnt from {CODEBOOK} documents and nlist "
                f"({self.nlist}) at least; raise min_docs to {least}"
            )
        return self


class DenseParams(Params):
    """The dense retriever; evaluation uses the same model for its baseline."""

    section: ClassVar[str] = "retrieve_dense"

    model: Origin
    """A folder that sentence-transformers loads, weights in safetensors."""
    query_prompt: str
    """Put before each query, as the model's authors say; "" for none."""
    doc_prompt: str
    """Put before each document; "" for none."""
    max_tokens: int = Field(gt=0, multiple_of=PADDED_TO)
    """Longer texts lose their end, prompt and special tokens included."""
    tokens_per_batch: int = Field(gt=0)
    """Largest number of tokens computed at once, padding included."""
    dtype: Dtype
    """What weights are kept and vectors computed in; see `anna.modeling.hardware`."""
    check_queries: int = Field(ge=0)
    """Queries of each task, the first by hash, whose candidates are ranked in float32, too, to compare the two orders;
    0: none. Where all is computed in float32, nothing is compared."""
    min_spearman: float = Field(ge=-1, le=1)
    """Least mean rank correlation of the two orders; below it the stage fails."""
    depth: int = Field(gt=0)
    """Candidates kept per query."""
    index: IndexParams
    """How large collections are searched."""


class DenseTeacher:
    """Gives the vector of any text, and loads its model only for texts that it has not seen before."""

    def __init__(self, params: DenseParams, counts: Counter[str], where: Engine, root: Path = store.ROOT) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            params: Model, prompts and limits.
            counts: Gets how many vectors were `reused` and how many `computed`.
            where: What computes.
            root: Folder of all stores.
        """
        self.params, self.engine = params, where
        self.spec = engine.ModelSpec("dense", partial(_describe, params), partial(_load, params))
        self._counts, self._root = counts, root

    def encode(self, texts: Sequence[str], prompt: str) -> store.Parts:
        """Yield places in `texts`, which are distinct, and their unit vectors: known ones, then the rest in batches.

        Args:
            texts: Bare texts.
            prompt: Put before each text.
        """
        return engine.fetch(self.engine, self.spec, [(prompt, text) for text in texts], self._counts, self._root)

    def fill(self, items: Iterable[tuple[str, str]]) -> None:
        """Compute at once all vectors that later calls of `encode` will read, and count them as computed, not reused.

        Args:
            items: (prompt, text), in any order.
        """
        counts = Counter[str]()
        for _ in engine.fetch(self.engine, self.spec, list(dict.fromkeys(items)), counts, self._root):
            pass
        self._counts.update(computed=counts["computed"], reused=-counts["computed"])

    def embed(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        """Return the unit vectors of `texts`, (N, D); equal texts are computed once."""
        return store.values_of(texts, lambda distinct: self.encode(distinct, prompt))

    def cosines(self, pairs: Items) -> NDArray[np.float32]:
        """Return the cosine of each (query, document), (N,)."""
        query_prompt, doc_prompt = self.params.query_prompt, self.params.doc_prompt
        queries, docs = ([pair[side] for pair in pairs] for side in (0, 1))
        self.fill([(query_prompt, text) for text in queries] + [(doc_prompt, text) for text in docs])
        query_emb_ND, doc_emb_ND = self.embed(queries, query_prompt), self.embed(docs, doc_prompt)
        return np.asarray(np.einsum("nd,nd->n", query_emb_ND, doc_emb_ND, dtype=np.float64), dtype=np.float32)


def _describe(params: DenseParams) -> dict[str, Any]:
    return {
        "model": fingerprints.model_hash(params.model),
        "max_tokens": params.max_tokens,
        "dtype": str(compute_dtype(params.dtype)),
        "device": pick_device(),
        "version": bi_encoder.VERSION,
        "libraries": fingerprints.library_versions(),
    }


def _load(params: DenseParams) -> Model:
    model = bi_encoder.load_model(fetch_model(params.model), params.max_tokens, compute_dtype(params.dtype))
    for key in ("query_prompt", "doc_prompt"):
        taken = len(model.tokenizer(getattr(params, key))["input_ids"])
        if taken >= params.max_tokens:
            raise InputError(
                f"retrieve_dense.{key} takes {taken} tokens, special ones among them, of {params.max_tokens} "
                "(retrieve_dense.max_tokens), so nothing of a text would be read; raise that, or shorten the prompt"
            )

    def plan(items: Items) -> list[list[int]]:
        """Return batches of one prompt each."""
        batches: list[list[int]] = []
        for prompt in dict.fromkeys(prompt for prompt, _ in items):
            own = [place for place, item in enumerate(items) if item[0] == prompt]
            texts = [items[place][1] for place in own]
            planned = bi_encoder.plan_batches(model, texts, prompt, params.tokens_per_batch)
            batches += [[own[place] for place in batch] for batch in planned]
        return batches

    return Model(
        plan=plan,
        compute=lambda items: bi_encoder.encode_batch(model, [text for _, text in items], items[0][0]),
    )
