"""A tiny random cross-encoder: raw logits, the same bits in whatever batch."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, BertForSequenceClassification

from anna.errors import InputError
from anna.teachers import cross_encoder
from anna.teachers.cross_encoder import PairReader
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


@pytest.fixture
def reader(model: CrossEncoder) -> PairReader:
    return PairReader(model.tokenizer, **LIMITS)


def score(model: CrossEncoder, pairs: list[tuple[str, str]], tokens_per_batch: int) -> NDArray[np.float32]:
    scores = np.empty(len(pairs), dtype=np.float32)
    for batch in PairReader(model.tokenizer, **LIMITS).plan_batches(pairs, tokens_per_batch):
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


def test_what_is_left_after_some_batches_gives_the_other_batches(reader: PairReader) -> None:
    batches = reader.plan_batches(PAIRS, 128)
    assert sorted(place for batch in batches for place in batch) == list(range(len(PAIRS)))
    for done in range(len(batches)):
        left = sorted(place for batch in batches[done:] for place in batch)
        again = reader.plan_batches([PAIRS[place] for place in left], 128)
        assert [[left[index] for index in batch] for batch in again] == batches[done:]


@pytest.mark.parametrize(("doc_tokens", "query_tokens"), [(26, 6), (8, 8), (14, 2)])
def test_batches_are_those_of_the_cut_pairs_as_they_are_tokenised(
    model: CrossEncoder, doc_tokens: int, query_tokens: int
) -> None:
    pairs = [*PAIRS, (" ".join(WORDS), "rivers, of Paris."), ("", " ".join(WORDS[::-1])), ("unrivered", "")]
    reader = PairReader(model.tokenizer, doc_tokens=doc_tokens, query_tokens=query_tokens)
    cut = reader.cut(pairs)
    longest = doc_tokens + query_tokens
    rows = [model.tokenizer(*pair, truncation=True, max_length=longest)["input_ids"] for pair in cut]
    lengths = [-(-len(row) // 16) * 16 for row in rows]
    assert set(lengths) == set(range(16, longest + 1, 16))
    assert reader.plan_batches(pairs, 128) == whole_batches(lengths, 128)
    assert reader.cut(pairs[5::7]) == cut[5::7]


def test_each_text_is_tokenised_once_to_plan_batches_and_to_cut_them(model: CrossEncoder) -> None:
    read: list[str] = []

    class Counting:
        num_special_tokens_to_add = model.tokenizer.num_special_tokens_to_add

        def __call__(self, texts: list[str], **options: Any) -> Any:
            read.extend(texts)
            return model.tokenizer(texts, **options)

    reader = PairReader(Counting(), **LIMITS)
    for batch in reader.plan_batches(PAIRS * 5, 128):
        reader.cut([(PAIRS * 5)[place] for place in batch])
    assert sorted(read) == sorted([*{query for query, _ in PAIRS}, *{doc for _, doc in PAIRS}])


def test_long_pairs_lose_their_end(path: Path) -> None:
    model = cross_encoder.load_cross_encoder(path, 16)
    long, short = ("river", " ".join(WORDS)), ("river", " ".join(WORDS[:12]))
    np.testing.assert_array_equal(*cross_encoder.score_batch(model, [long, short]))


def test_each_side_is_cut_to_its_own_limit(model: CrossEncoder) -> None:
    texts = ["river, PARIS seine who", "wrote this. is"]
    pairs = [(texts[0], texts[1]), (texts[1], texts[0]), ("river", "")]
    assert PairReader(model.tokenizer, doc_tokens=99, query_tokens=99).cut(pairs) == pairs
    cut = PairReader(model.tokenizer, doc_tokens=3, query_tokens=2).cut(pairs)
    assert cut == [("river,", "wrote this."), ("wrote this", "river, PARIS"), ("river", "")]


def test_what_was_not_planned_here_is_cut_alike(model: CrossEncoder, reader: PairReader) -> None:
    long = [(" ".join(WORDS), " ".join(WORDS * 3)), ("river", "berlin")]
    reader.plan_batches(PAIRS, 128)
    assert reader.cut(long) == PairReader(model.tokenizer, **LIMITS).cut(long) != long


def test_in_bfloat16_all_weights_are_and_scores_are_close(path: Path, model: CrossEncoder) -> None:
    narrow = cross_encoder.load_cross_encoder(path, 32, torch.bfloat16)
    assert {weight.dtype for weight in narrow.parameters()} == {torch.bfloat16}
    scores, exact = score(narrow, PAIRS, 128), score(model, PAIRS, 128)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, exact, atol=0.02 * np.abs(exact).max())
    assert not np.array_equal(scores, exact)


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives 3 scores per pair, needs 1"):
        cross_encoder.load_cross_encoder(save_cross_encoder(tmp_path / "model", 3), 32)


@pytest.mark.parametrize("max_tokens", [20, 48])
def test_lengths_that_it_cannot_compute_are_refused(path: Path, max_tokens: int) -> None:
    expected = rf"doc_tokens and .query_tokens make {max_tokens} tokens, .* multiple of 16, and .* takes 32"
    with pytest.raises(InputError, match=expected):
        cross_encoder.load_cross_encoder(path, max_tokens)


def test_a_chat_template_changes_no_score(tmp_path: Path, path: Path, model: CrossEncoder) -> None:
    folder = tmp_path / "chat"
    shutil.copytree(path, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}), encoding="utf-8")
    chat = cross_encoder.load_cross_encoder(folder, 32)
    assert chat.tokenizer.chat_template == template
    np.testing.assert_array_equal(score(chat, PAIRS, 64), score(model, PAIRS, 64))
