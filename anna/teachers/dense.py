"""The dense teacher: a model and the store of its vectors, so that each text is computed once."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sentence_transformers import SentenceTransformer

from anna import fingerprints, store
from anna.modeling.hardware import compute_dtype, pick_device
from anna.origins import Origin, fetch_model
from anna.params import Params, Strict
from anna.teachers import bi_encoder
from anna.teachers.padding import PADDED_TO


class IndexParams(Strict):
    """How collections are searched that are too large to compare every document: FAISS IVF-PQ, then exact scores."""

    min_docs: int = Field(gt=0)
    """Documents of a task from which it is searched so; below, every document is compared."""
    nlist: int | None = Field(gt=0)
    """Lists that the documents are divided into; null: four times the square root of their number."""
    m: int = Field(gt=0)
    """Bytes per document in memory; must divide the dimensions of the model."""
    nprobe: int = Field(gt=0)
    """Lists searched per query: more finds more, and is slower."""
    rescore: int = Field(gt=0)
    """Candidates per query that are scored exactly: more finds more, and is slower."""
    min_recall: float = Field(ge=0, le=1)
    """Share of the results of exact search that must be found; below it the stage fails."""
    sample: int = Field(gt=0)
    """Queries of each such task by which that share is measured."""


class DenseParams(Params):
    """The dense retriever; evaluation uses the same model for its baseline."""

    section: ClassVar[str] = "retrieve_dense"

    model: Origin
    """A folder that sentence-transformers loads, weights in safetensors."""
    query_prompt: str
    """Put before each query, as the model's authors say; "" for none."""
    doc_prompt: str = ""
    """Put before each document."""
    max_tokens: int = Field(gt=0, multiple_of=PADDED_TO)
    """Longer texts lose their end, prompt and special tokens included."""
    tokens_per_batch: int = Field(default=8192, gt=0)
    """Largest number of tokens computed at once, padding included."""
    depth: int = Field(gt=0)
    """Candidates kept per query."""
    index: IndexParams
    """How large collections are searched."""


class DenseTeacher:
    """Gives the vector of any text, and loads its model only for texts that it has not seen before."""

    def __init__(self, params: DenseParams, counts: Counter[str], root: Path = store.ROOT) -> None:
        """Find the store of the model's vectors.

        Args:
            params: Model and limits.
            counts: Gets how many vectors were `reused` and how many `computed`.
            root: Folder of all stores.
        """
        self._params, self._counts = params, counts
        decisive = {
            "model": fingerprints.model_hash(params.model),
            "max_tokens": params.max_tokens,
            "dtype": str(compute_dtype("auto")),
            "device": pick_device(),
            "version": bi_encoder.VERSION,
            "libraries": fingerprints.library_versions(),
        }
        self._store = store.Store("dense", decisive, root)

    def encode(self, texts: Sequence[str], prompt: str) -> store.Parts:
        """Yield places in `texts`, which are distinct, and their unit vectors: known ones, then the rest in batches.

        Args:
            texts: Bare texts.
            prompt: Put before each text.
        """
        return self._store.fetch(
            fingerprints.text_keys((prompt, text) for text in texts),
            lambda missing: bi_encoder.plan_batches(
                self._model, [texts[place] for place in missing], prompt, self._params.tokens_per_batch
            ),
            lambda places: bi_encoder.encode_batch(self._model, [texts[place] for place in places], prompt),
            self._counts,
            "dense encoding",
        )

    def embed(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        """Return the unit vectors of `texts`, (N, D); equal texts are computed once."""
        place = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        vectors = store.gather(self.encode(list(place), prompt), len(place))
        return vectors[[place[text] for text in texts]]

    @cached_property
    def _model(self) -> SentenceTransformer:
        return bi_encoder.load_model(fetch_model(self._params.model), self._params.max_tokens)
