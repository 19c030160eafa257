import mteb
import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from mteb.models import EncoderProtocol, SearchProtocol
from mteb.types import PromptType

from anna.evaluation.mteb_model import CachedEmbedder, PromptedModel, SearchModel
from anna.evaluation.tasks import held_out_tasks
from tests.evaluation.conftest import hash_embed


class Recorder:
    """An embedder that remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def embed(self, texts, prefix):
        self.calls.extend((prefix, text) for text in texts)
        return hash_embed(texts, prefix)


def search(doc_ids, docs, query_ids, queries, depth):
    """Find the first `depth` documents for every query but the last."""
    hits = [(q, d, -float(rank)) for q in query_ids[:-1] for rank, d in enumerate(doc_ids[:depth])]
    return pa.table({name: [hit[i] for hit in hits] for i, name in enumerate(("query_id", "doc_id", "score"))})


def test_the_wrappers_are_what_mteb_asks_for():
    encoder = PromptedModel("toy", "zero_shot", hash_embed, lambda task, side: "")
    assert isinstance(encoder, EncoderProtocol)
    assert not isinstance(encoder, SearchProtocol)
    assert isinstance(SearchModel("toy", "zero_shot", search), SearchProtocol)
    assert (encoder.mteb_model_meta.name, encoder.mteb_model_meta.revision) == ("anna/toy", "zero_shot")


def test_each_text_is_embedded_once_per_prefix_and_in_its_place():
    recorder = Recorder()
    embed = CachedEmbedder(recorder.embed)
    first = embed(["a", "b", "a"], "")
    second = embed(["b", "c"], "")
    third = embed(["b"], "p ")
    assert recorder.calls == [("", "a"), ("", "b"), ("", "c"), ("p ", "b")]
    np.testing.assert_array_equal(first, hash_embed(["a", "b", "a"], ""))
    np.testing.assert_array_equal(second, hash_embed(["b", "c"], ""))
    np.testing.assert_array_equal(third, hash_embed(["b"], "p "))


def test_what_is_forgotten_is_embedded_again():
    recorder = Recorder()
    embed = CachedEmbedder(recorder.embed)
    embed(["a"], "")
    embed.forget()
    embed(["a"], "")
    assert recorder.calls == [("", "a"), ("", "a")]


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("Farm", {PromptType.query, PromptType.document}),
        ("Shelf", {PromptType.query, PromptType.document}),
        ("Alike", {None}),
        ("Same", {None}),
        ("Kinds", {None}),
        ("Heaps", {None}),
        ("Digest", {None}),
    ],
)
def test_the_prefix_is_asked_for_by_task_and_side(tables, name, sides):
    asked = set()

    def prefix(task, side):
        asked.add((task, side))
        return ""

    task = next(t for t in held_out_tasks(tables) if t.metadata.name == name)
    mteb.evaluate(PromptedModel("toy", "zero_shot", hash_embed, prefix), task, cache=None, co2_tracker=False)
    assert asked == {(name, side) for side in sides}


def test_classification_encodes_each_text_once_in_ten_experiments(tables):
    recorder = Recorder()
    task = next(t for t in held_out_tasks(tables) if t.metadata.name == "Kinds")
    model = PromptedModel("toy", "zero_shot", CachedEmbedder(recorder.embed), lambda task, side: "")
    mteb.evaluate(model, task, cache=None, co2_tracker=False)
    assert len(recorder.calls) == len(set(recorder.calls)) == 16


def test_a_query_without_hits_counts_as_zero(tables):
    task = next(t for t in held_out_tasks(tables) if t.metadata.name == "Farm")
    result = mteb.evaluate(SearchModel("toy", "zero_shot", search), task, cache=None, co2_tracker=False)
    # The queries' documents stand first, second, third; the fourth query has no hit.
    expected = (1 + 1 / np.log2(3) + 1 / np.log2(4) + 0) / 4
    assert result.task_results[0].get_score() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("top_k", "depth"), [(2, 2), (9, 3)])
def test_a_search_is_as_deep_as_asked_and_no_deeper_than_the_corpus(top_k, depth):
    depths = []
    model = SearchModel("toy", "zero_shot", lambda *args: (depths.append(args[-1]), search(*args))[1])
    model.index(Dataset.from_dict({"id": ["1", "2", "3"], "text": ["a", "b", "c"]}))
    found = model.search(Dataset.from_dict({"id": ["q", "r"], "text": ["a", "b"]}), top_k=top_k)
    assert depths == [depth]
    assert [len(docs) for docs in found.values()] == [depth, 0]


def test_title_and_text_are_joined_as_mteb_does():
    model = SearchModel("toy", "zero_shot", search)
    model.index(Dataset.from_dict({"id": ["1", "2"], "title": ["Cat", ""], "text": ["sleeps", " runs"]}))
    assert model._docs == ["Cat sleeps", "runs"]
