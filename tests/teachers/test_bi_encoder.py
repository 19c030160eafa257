"""Vectors by a tiny random model: of unit length, and the same bits in whatever batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding

from anna.errors import InputError
from anna.teachers import bi_encoder, padding
from tests.teachers.models import WORDS, save_bi_encoder

TEXTS = [" ".join(WORDS[start : start + length]) for start in range(4) for length in (1, 2, 5, 9, 13, 14, 15)]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bi_encoder(tmp_path_factory.mktemp("dense"))


@pytest.fixture
def model(model_path: Path) -> SentenceTransformer:
    return bi_encoder.load_model(model_path, 32)


def encode(
    model: SentenceTransformer, texts: list[str], tokens_per_batch: int, prompt: str = ""
) -> NDArray[np.float32]:
    vectors = np.empty((len(texts), 16), dtype=np.float32)
    for batch in bi_encoder.plan_batches(model, texts, prompt, tokens_per_batch):
        vectors[batch] = bi_encoder.encode_batch(model, [texts[place] for place in batch], prompt)
    return vectors


def test_vectors_are_those_of_the_library_divided_by_their_length(model: SentenceTransformer) -> None:
    vectors = encode(model, TEXTS, 64)
    assert vectors.dtype == np.float32
    expected = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_text_has_the_same_bits_in_whatever_batch(model: SentenceTransformer) -> None:
    whole = encode(model, TEXTS, 10_000)
    for tokens_per_batch in (1, 40, 200):
        np.testing.assert_array_equal(encode(model, TEXTS, tokens_per_batch), whole)
    np.testing.assert_array_equal(encode(model, TEXTS[3:17:2], 10_000), whole[3:17:2])


def test_batches_count_padding_and_hold_texts_of_like_length(model: SentenceTransformer) -> None:
    texts = ["river", "river seine", " ".join(WORDS[:15]), "paris"]  # 3, 4, 17 and 3 tokens
    assert bi_encoder.plan_batches(model, texts, "", 48) == [[2], [0, 1, 3]]
    assert bi_encoder.plan_batches(model, texts, "", 47) == [[2], [0, 1], [3]]
    assert bi_encoder.plan_batches(model, texts, " ".join(WORDS[:14]) + " ", 64) == [[0, 1], [2, 3]]


def test_what_is_left_after_some_batches_gives_the_other_batches(model: SentenceTransformer) -> None:
    batches = bi_encoder.plan_batches(model, TEXTS, "", 48)
    for done in range(len(batches)):
        left = sorted(place for batch in batches[done:] for place in batch)
        again = bi_encoder.plan_batches(model, [TEXTS[place] for place in left], "", 48)
        assert [[left[index] for index in batch] for batch in again] == batches[done:]


def test_lengths_do_not_depend_on_how_many_texts_are_tokenised_at_once(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bi_encoder.plan_batches(model, TEXTS, "", 64)
    monkeypatch.setattr(padding, "TOKENISED_AT_ONCE", 3)
    assert bi_encoder.plan_batches(model, TEXTS, "", 64) == whole


def test_prompt_comes_before_the_text(model: SentenceTransformer) -> None:
    with_prompt = bi_encoder.encode_batch(model, ["river"], "capital of ")
    by_hand = bi_encoder.encode_batch(model, ["capital of river"], "")
    np.testing.assert_array_equal(with_prompt, by_hand)


def test_no_prompt_is_none_whatever_the_model_has_by_default(model_path: Path, tmp_path: Path) -> None:
    saved = SentenceTransformer(str(model_path), device="cpu")
    saved.prompts, saved.default_prompt_name = {"query": "capital of "}, "query"
    saved.save(str(tmp_path / "prompted"))
    vectors = [
        bi_encoder.encode_batch(bi_encoder.load_model(path, 32), ["river"], "")
        for path in (model_path, tmp_path / "prompted")
    ]
    np.testing.assert_array_equal(*vectors)


def test_in_bfloat16_all_weights_are_and_vectors_are_close(model_path: Path, tmp_path: Path) -> None:
    saved = SentenceTransformer(str(model_path), device="cpu")
    torch.manual_seed(0)
    saved.append(Dense(16, 8))
    saved.save(str(tmp_path / "with_head"))
    exact, narrow = (
        bi_encoder.load_model(tmp_path / "with_head", 32, dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    assert {weight.dtype for weight in narrow.parameters()} == {torch.bfloat16}
    vectors, expected = (bi_encoder.encode_batch(model, TEXTS, "") for model in (narrow, exact))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert 0.999 < (vectors * expected).sum(axis=1).min() < 1 - 1e-6


def test_texts_are_cut_to_max_tokens(model_path: Path) -> None:
    model = bi_encoder.load_model(model_path, 16)
    long, short = bi_encoder.encode_batch(model, [" ".join(WORDS), " ".join(WORDS[:14])], "")
    np.testing.assert_array_equal(long, short)


def test_a_folder_that_does_not_say_how_it_pools_and_one_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"has no modules\.json, which says how its vectors are pooled; .*retrieve_dense"
    ):
        bi_encoder.load_model(tmp_path, 16)
    for modules in ("[]", "{", json.dumps([{"type": "sentence_transformers.models.Transformer"}])):
        (tmp_path / "modules.json").write_text(modules, encoding="utf-8")
        with pytest.raises(InputError, match=r"is not a sentence-transformers model .*retrieve_dense.model"):
            bi_encoder.load_model(tmp_path, 16)


def test_a_table_of_vectors_is_refused(model_path: Path, tmp_path: Path) -> None:
    tokenizer = SentenceTransformer(str(model_path), device="cpu").tokenizer.backend_tokenizer
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)]).save(str(tmp_path))
    with pytest.raises(InputError, match=r"begins with a StaticEmbedding, expected a Transformer; choose another"):
        bi_encoder.load_model(tmp_path, 32)


def test_more_tokens_than_the_model_takes_are_refused(model_path: Path) -> None:
    with pytest.raises(InputError, match=r"retrieve_dense.max_tokens is 48, but .* takes 32; lower it"):
        bi_encoder.load_model(model_path, 48)


@pytest.mark.parametrize(("eos", "is_refused"), [("[SEP]", False), ("[PAD]", True)])
def test_a_model_that_reads_eos_gets_texts_that_end_in_it(tmp_path: Path, eos: str, is_refused: bool) -> None:
    """mteb #5237: a library stopped appending the token that the model is read at."""
    folder = save_bi_encoder(tmp_path)
    pooling = next(folder.glob("*Pooling*")) / "config.json"
    pooling.write_text(json.dumps({"embedding_dimension": 16, "pooling_mode": "lasttoken"}))
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"add_eos_token": True, "eos_token": eos}))
    if is_refused:
        with pytest.raises(InputError, match=r"by its tokenizer_config.json is EOS \(0\), but this transformers .* 3;"):
            bi_encoder.load_model(folder, 32)
    else:
        bi_encoder.load_model(folder, 32)
