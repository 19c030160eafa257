"""Search the documents of one task with the exported model, through plain sentence-transformers.

Documents are encoded by the first search; their vectors are kept like the teachers', so the next one takes seconds.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from anna import fingerprints, log, store
from anna.cleaning import clean
from anna.errors import InputError
from anna.modeling.encoder_config import CARD_FILE, EncoderConfig

BATCH = 64
"""Documents encoded, and kept, at once."""

_log = logging.getLogger(__name__)


class Hit(NamedTuple):
    """A document found."""

    doc_id: str
    text: str
    score: float
    """Cosine with the query."""


def search(model: Path, corpus: pa.Table, text: str, task: str | None, top: int) -> list[Hit]:
    """Return the documents nearest to `text`, best first; ties by doc_id.

    Args:
        model: What `export` wrote.
        corpus: Table CORPUS.
        text: Bare query; it is cleaned as every table's texts are.
        task: Whose documents are searched and whose instruction the query gets; None: the only one there is.
        top: Most documents returned, > 0.

    Raises:
        InputError: If there is no model, no such task, the text is empty, `top` is not positive, or the model is
            exported anew meanwhile: vectors of one would be kept as the other's.
    """
    query = clean(text.encode("utf-8", "replace").decode())  # a terminal may give bytes that are not UTF-8
    if not query:
        raise InputError(f"text {text!r} of the search is empty; give some words")
    if top < 1:
        raise InputError(f"--top {top} is not positive; give 1 or more")
    if not model.is_dir():
        raise InputError(f"{model} does not exist; make it with: dvc repro export")
    name = choose_task(corpus, task)
    docs = corpus.filter(pc.equal(corpus["task"], name))
    files = _files(model)
    content = fingerprints.content_hash(model, CARD_FILE)
    is_symmetric = EncoderConfig.load(model).task(name).symmetric
    encoder = SentenceTransformer(str(model), local_files_only=True)
    if _files(model) != files:
        raise InputError(f"{model} was written anew while it was read; search again")
    query_emb_1D = encoder.encode([query], prompt_name=name, show_progress_bar=False)
    doc_emb_ND = _encode_docs(encoder, content, docs["text"].to_pylist(), name if is_symmetric else None)
    scores_N = doc_emb_ND @ query_emb_1D[0]
    return rank(docs, scores_N, top)


def _files(model: Path) -> list[tuple[str, int, int]]:
    """Return which files the model is in, as they are now."""
    stats = ((path.name, path.stat()) for path in sorted(model.iterdir()))
    return [(name, stat.st_ino, stat.st_mtime_ns) for name, stat in stats]


def _encode_docs(
    encoder: SentenceTransformer, content: str, texts: Sequence[str], prompt_name: str | None
) -> NDArray[np.float32]:
    """Return the vectors of `texts`, (N, D), those of an earlier search with a model of this content from the store."""
    decisive = {
        "model": content,
        "prompt": prompt_name,
        "device": encoder.device.type,
        "libraries": fingerprints.library_versions(),
    }
    counts = Counter[str]()

    def fetch(distinct: list[str]) -> store.Parts:
        def compute(missing: NDArray[np.int64]) -> Iterator[tuple[Sequence[int], NDArray[np.float32]]]:
            longest_first = sorted(range(len(missing)), key=lambda place: -len(distinct[missing[place]]))
            batches = [longest_first[first : first + BATCH] for first in range(0, len(missing), BATCH)]
            for batch in log.progress(batches, unit="batch", desc=f"encoding {len(missing)} documents"):
                some = [distinct[missing[place]] for place in batch]
                yield batch, encoder.encode(some, prompt_name=prompt_name, batch_size=BATCH, show_progress_bar=False)

        keys = fingerprints.text_keys((text,) for text in distinct)
        return store.Store("search", decisive).fetch(keys, compute, counts)

    vectors = store.values_of(texts, fetch)
    _log.info("%d documents: %d encoded, %d known", counts.total(), counts["computed"], counts["reused"])
    return vectors


def rank(docs: pa.Table, scores_N: NDArray[np.float32], top: int) -> list[Hit]:
    """Return the best `top` of `docs`, best first; ties by doc_id, the order of the table."""
    best = np.argsort(-scores_N, kind="stable")[:top]
    # Row by row: Arrow would copy all texts to take some, and refuses over 2 GiB.
    rows = [docs.slice(place, 1).to_pylist()[0] for place in best.tolist()]
    return [Hit(row["doc_id"], row["text"], float(scores_N[place])) for row, place in zip(rows, best, strict=True)]


def choose_task(corpus: pa.Table, task: str | None) -> str:
    """Return the task to search.

    Raises:
        InputError: If the corpus lacks it, or none is named and there are several.
    """
    known = sorted(corpus["task"].unique().to_pylist())
    if task is None and len(known) == 1:
        return str(known[0])
    if task is None:
        raise InputError(f"data/corpus.parquet holds {len(known)} tasks; name one: --task {' | '.join(known)}")
    if task not in known:
        raise InputError(f"--task {task!r} is not in data/corpus.parquet; it has {', '.join(known) or 'no task'}")
    return task
