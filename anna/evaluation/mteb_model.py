"""Models as mteb sees them: its encoder and search protocols around plain functions that embed or search."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import PromptType
from numpy.typing import NDArray

Embed = Callable[[Sequence[str], str], NDArray[np.float32]]
"""(texts, prefix) -> unit vectors, (N, D)."""

Search = Callable[[Sequence[str], Sequence[str], Sequence[str], Sequence[str], int], pa.Table]
"""(doc ids, documents, query ids, queries, depth) -> table RUN: for each query its best documents and their scores."""


class CachedEmbedder:
    """Embeds each text once per prefix.

    A task's bare documents are the same with and without in-context examples, and classification and clustering tasks
    repeat texts, so this saves about half of all work.
    """

    def __init__(self, embed: Embed) -> None:
        """Store what embeds; nothing is embedded yet."""
        self._embed = embed
        self._vectors: dict[tuple[str, str], NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        """Return the vectors of `texts` after `prefix`, (N, D)."""
        missing = [text for text in dict.fromkeys(texts) if (prefix, text) not in self._vectors]
        if missing:
            vectors = self._embed(missing, prefix)
            self._vectors.update({(prefix, text): vector for text, vector in zip(missing, vectors, strict=True)})
        return np.stack([self._vectors[prefix, text] for text in texts])

    def forget(self) -> None:
        """Drop the vectors: tasks share next to no text, and a benchmark's vectors do not fit in memory together."""
        self._vectors.clear()


class PromptedModel:
    """mteb's EncoderProtocol: embeds texts with the prefix that belongs to their task and side."""

    def __init__(
        self,
        name: str,
        revision: str,
        embed: Embed,
        prefix: Callable[[str, PromptType | None], str],
        trained_on: Collection[str] | None = None,
    ) -> None:
        """Store the parts.

        Args:
            name: What the results are filed under.
            revision: The mode, in mteb's results.
            embed: Embeds texts after a prefix.
            prefix: (task, side) -> prefix; the side is None in tasks that do not search.
            trained_on: Names of its training tasks; None: not known.
        """
        self._embed, self._prefix = embed, prefix
        self._meta = _model_meta(name, revision, ScoringFunction.COSINE, trained_on)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Metadata that mteb files the results under."""
        return self._meta

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Return unit vectors, (N, D), of the texts of all batches of the data loader `inputs`."""
        texts = [text for batch in inputs for text in batch["text"]]
        return self._embed(texts, self._prefix(task_metadata.name, prompt_type))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Return the cosines of all pairs, (N1, N2)."""
        scores: torch.Tensor = cos_sim(embeddings1, embeddings2)
        return scores

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Return the cosines of corresponding rows, (N,)."""
        scores: torch.Tensor = pairwise_cos_sim(embeddings1, embeddings2)
        return scores


class SearchModel:
    """mteb's SearchProtocol around a search function; for retrieval tasks."""

    def __init__(self, name: str, revision: str, search: Search) -> None:
        """Store the search function; name and revision as for `PromptedModel`."""
        self._search = search
        self._meta = _model_meta(name, revision, None)
        self._doc_ids: list[str] = []
        self._docs: list[str] = []

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Metadata that mteb files the results under."""
        return self._meta

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Keep the corpus; title and text are joined as mteb does for encoders."""
        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
        self._doc_ids = list(corpus["id"])
        self._docs = [f"{title or ''} {text}".strip() for title, text in zip(titles, corpus["text"], strict=True)]

    def search(self, queries: Any, *, top_k: int, **kwargs: Any) -> dict[str, dict[str, float]]:
        """Return the best `top_k` documents of each query with their scores."""
        query_ids = list(queries["id"])
        depth = min(top_k, len(self._docs))
        run = self._search(self._doc_ids, self._docs, query_ids, list(queries["text"]), depth)
        # mteb averages over the queries that it is given here: one without a hit must count as 0, not be left out.
        found: dict[str, dict[str, float]] = {query_id: {} for query_id in query_ids}
        for row in run.select(["query_id", "doc_id", "score"]).to_pylist():
            found[row["query_id"]][row["doc_id"]] = row["score"]
        return found


def _model_meta(
    name: str, revision: str, scoring: ScoringFunction | None, trained_on: Collection[str] | None = None
) -> ModelMeta:
    values = {
        "name": f"anna/{name}",
        "revision": revision,
        "similarity_fn_name": scoring,
        "languages": ["eng-Latn"],
        "training_datasets": None if trained_on is None else set(trained_on),
    }
    return ModelMeta.create_empty(overwrites=values)
