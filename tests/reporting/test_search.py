"""Search ranks by (score, doc_id), within one task, with the prompts of the exported model."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sentence_transformers import SentenceTransformer

from anna import schemas
from anna.errors import InputError
from anna.modeling.encoder import Encoder
from anna.modeling.export import export
from anna.reporting import search


def corpus(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"doc_id": doc, "task": task, "text": text, "label": None} for doc, task, text in rows], schema=schemas.CORPUS
    )


TWO_TASKS = corpus(
    ("Capitals:d:1", "Capitals", "Paris is a capital"),
    ("Capitals:d:2", "Capitals", "rivers mountains"),
    ("Capitals:d:3", "Capitals", "Madrid"),
    ("Similar:d:1", "Similar", "one two three"),
)


def test_ties_are_broken_by_doc_id() -> None:
    hits = search.rank(TWO_TASKS, np.array([0.5, 0.9, 0.5, 0.5], dtype=np.float32), 3)
    assert [(hit.doc_id, round(hit.score, 3)) for hit in hits] == [
        ("Capitals:d:2", 0.9),
        ("Capitals:d:1", 0.5),
        ("Capitals:d:3", 0.5),
    ]


def test_a_corpus_may_hold_more_than_2_gib() -> None:
    text = pa.chunked_array([pa.array(["x" * 2**16] * 1_024)] * 33)
    names = pa.array([f"d{row:05d}" for row in range(len(text))])
    docs = pa.table({"doc_id": names, "task": names, "text": text, "label": names}, schema=schemas.CORPUS)
    assert docs["text"].nbytes > 2**31
    assert search.rank(docs, np.arange(len(text), dtype=np.float32), 2)[1].doc_id == f"d{len(text) - 2:05d}"


@pytest.mark.parametrize(
    ("task", "prefixed"), [("Capitals", False), ("Similar", True)], ids=["asymmetric", "symmetric"]
)
def test_scores_are_the_encoders(
    tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, prefixed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    export(tiny_encoder, tmp_path / "model")
    docs = [row for row in TWO_TASKS.to_pylist() if row["task"] == task]
    prefix = tiny_encoder.config.prefix(task)
    query_emb = tiny_encoder.encode(["what city"], prefix=prefix, max_tokens=64, tokens_per_batch=512)[0]
    doc_emb = tiny_encoder.encode(
        [row["text"] for row in docs], prefix=prefix if prefixed else "", max_tokens=64, tokens_per_batch=512
    )
    expected = {row["doc_id"]: score for row, score in zip(docs, (doc_emb @ query_emb).tolist(), strict=True)}
    hits = search.search(tmp_path / "model", TWO_TASKS, " wh\u200bat<br>\n  city\x07", task, 10)
    assert {hit.doc_id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-4)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_document_is_encoded_by_the_first_search_alone(
    tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export(tiny_encoder, tmp_path / "model")
    first = search.search(tmp_path / "model", TWO_TASKS, "what city", "Capitals", 10)
    encoded: list[str] = []
    plain = SentenceTransformer.encode

    def encode(self: SentenceTransformer, texts: list[str], **options: Any) -> Any:
        encoded.extend(texts)
        return plain(self, texts, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", encode)
    more = pa.concat_tables([TWO_TASKS, corpus(("Capitals:d:4", "Capitals", "Rome"))])
    second = search.search(tmp_path / "model", more, "what city", "Capitals", 10)
    assert encoded == ["what city", "Rome"]
    scores = {hit.doc_id: hit.score for hit in second}
    assert {hit.doc_id: scores[hit.doc_id] for hit in first} == pytest.approx({h.doc_id: h.score for h in first})
    with torch.no_grad():
        tiny_encoder.backbone.norm.weight.mul_(-1)
    export(tiny_encoder, tmp_path / "model")
    search.search(tmp_path / "model", more, "what city", "Capitals", 10)
    assert len(encoded) == 2 + 5, "another model's vectors are not these"


def test_a_model_that_is_exported_anew_meanwhile_leaves_no_vectors(
    tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export(tiny_encoder, tmp_path / "model")
    load = SentenceTransformer.__init__

    def load_and_export(self: SentenceTransformer, *args: Any, **options: Any) -> None:
        load(self, *args, **options)
        export(tiny_encoder, tmp_path / "model")

    monkeypatch.setattr(SentenceTransformer, "__init__", load_and_export)
    with pytest.raises(InputError, match=r"model was written anew while it was read; search again$"):
        search.search(tmp_path / "model", TWO_TASKS, "what city", "Capitals", 3)
    assert not (tmp_path / "runs").exists()


def test_the_only_task_need_not_be_named() -> None:
    assert search.choose_task(corpus(("A:d:1", "A", "x")), None) == "A"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (None, r"holds 2 tasks; name one: --task Capitals \| Similar"),
        ("BoolQ", "--task 'BoolQ' is not in data/corpus.parquet; it has Capitals, Similar"),
    ],
)
def test_tasks_that_cannot_be_searched_are_refused(task: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search.choose_task(TWO_TASKS, task)


@pytest.mark.parametrize(
    ("text", "top", "message"),
    [
        (" ", 5, "is empty; give some words"),
        ("x", 0, "--top 0 is not positive"),
        ("x", 5, "does not exist; make it with"),
    ],
)
def test_bad_questions_are_refused(tmp_path: Path, text: str, top: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search.search(tmp_path / "model", TWO_TASKS, text, "Capitals", top)


def test_a_folder_without_a_model_is_refused_also_for_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"encoder.json"):
        search.search(tmp_path, TWO_TASKS, "caf\udce9", "Capitals", 5)
