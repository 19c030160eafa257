"""A tiny random cross-encoder: raw logits, the same bits in whatever batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, BertForSequenceClassification

from anna.errors import InputError
from anna.teachers import cross_encoder, padding
from anna.teachers.padding import whole_batches
from tests.teachers.models import WORDS, save_cross_encoder

PAIRS = [("who wrote this", "paris is the capital of france"), ("river", "the river seine"), ("river", "berlin")]
PAIRS += [(query, " ".join(WORDS[:length])) for query in ("paris", "river seine") for length in range(1, 20)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("cross") / "model")


@pytest.fixture
def model(path: Path) -> CrossEncoder:
    return cross_encoder.load_cross_encoder(path, 32)


LIMITS = {"doc_tokens": 26, "query_tokens": 6}
"""That no text of `PAIRS` reaches."""


def score(model: CrossEncoder, pairs: list[tuple[str, str]], tokens_per_batch: int) -> NDArray[np.float32]:
    scores = np.empty(len(pairs), dtype=np.float32)
    for batch in cross_encoder.plan_batches(model, pairs, **LIMITS, tokens_per_batch=tokens_per_batch):
        scores[batch] = cross_encoder.score_batch(model, [pairs[place] for place in batch])
    return scores


def test_scores_are_the_raw_logits(path: Path, model: CrossEncoder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path)
    by_hand = BertForSequenceClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        logits = [by_hand(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in PAIRS]
    np.testing.assert_allclose(score(model, PAIRS, 64), logits, atol=1e-5)


def test_a_pair_has_the_same_bits_in_whatever_batch(model: CrossEncoder) -> None:
    whole = score(model, PAIRS, 10_000)
    for tokens_per_batch in (1, 64, 200):
        np.testing.assert_array_equal(score(model, PAIRS, tokens_per_batch), whole)
    np.testing.assert_array_equal(score(model, PAIRS[1::3], 10_000), whole[1::3])


def test_what_is_left_after_some_batches_gives_the_other_batches(model: CrossEncoder) -> None:
    batches = cross_encoder.plan_batches(model, PAIRS, **LIMITS, tokens_per_batch=128)
    assert sorted(place for batch in batches for place in batch) == list(range(len(PAIRS)))
    for done in range(len(batches)):
        left = sorted(place for batch in batches[done:] for place in batch)
        again = cross_encoder.plan_batches(model, [PAIRS[place] for place in left], **LIMITS, tokens_per_batch=128)
        assert [[left[index] for index in batch] for batch in again] == batches[done:]


@pytest.mark.parametrize(("doc_tokens", "query_tokens"), [(26, 6), (8, 8), (14, 2)])
def test_batches_are_those_of_the_cut_pairs_as_they_are_tokenised(
    model: CrossEncoder, doc_tokens: int, query_tokens: int
) -> None:
    pairs = [*PAIRS, (" ".join(WORDS), "rivers, of Paris."), ("", " ".join(WORDS[::-1])), ("unrivered", "")]
    cut = cross_encoder.cut_pairs(model, pairs, doc_tokens=doc_tokens, query_tokens=query_tokens)
    longest = doc_tokens + query_tokens
    rows = [model.tokenizer(*pair, truncation=True, max_length=longest)["input_ids"] for pair in cut]
    lengths = [-(-len(row) // 16) * 16 for row in rows]
    assert set(lengths) == set(range(16, longest + 1, 16))
    planned = cross_encoder.plan_batches(
        model, pairs, doc_tokens=doc_tokens, query_tokens=query_tokens, tokens_per_batch=128
    )
    assert planned == whole_batches(lengths, 128)


def test_batches_are_planned_by_tokenising_each_text_once(model: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = padding.count_tokens

    def counting(tokenizer: object, texts: list[str], **options: Any) -> list[int]:
        read.extend(texts)
        return original(tokenizer, texts, **options)

    monkeypatch.setattr(padding, "count_tokens", counting)
    cross_encoder.plan_batches(model, PAIRS * 5, **LIMITS, tokens_per_batch=128)
    assert sorted(read) == sorted([*{query for query, _ in PAIRS}, *{doc for _, doc in PAIRS}])


def test_long_pairs_lose_their_end(path: Path) -> None:
    model = cross_encoder.load_cross_encoder(path, 16)
    long, short = ("river", " ".join(WORDS)), ("river", " ".join(WORDS[:12]))
    np.testing.assert_array_equal(*cross_encoder.score_batch(model, [long, short]))


def test_each_side_is_cut_to_its_own_limit(model: CrossEncoder) -> None:
    texts = ["river, PARIS seine who", "wrote this. is"]
    pairs = [(texts[0], texts[1]), (texts[1], texts[0]), ("river", "")]
    assert cross_encoder.cut_pairs(model, pairs, doc_tokens=99, query_tokens=99) == pairs
    cut = cross_encoder.cut_pairs(model, pairs, doc_tokens=3, query_tokens=2)
    assert cut == [("river,", "wrote this."), ("wrote this", "river, PARIS"), ("river", "")]


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives 3 scores per pair, needs 1"):
        cross_encoder.load_cross_encoder(save_cross_encoder(tmp_path / "model", 3), 32)


@pytest.mark.parametrize("max_tokens", [20, 48])
def test_lengths_that_it_cannot_compute_are_refused(path: Path, max_tokens: int) -> None:
    expected = rf"doc_tokens and .query_tokens make {max_tokens} tokens, .* multiple of 16, and .* takes 32"
    with pytest.raises(InputError, match=expected):
        cross_encoder.load_cross_encoder(path, max_tokens)
