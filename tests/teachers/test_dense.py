"""The dense retriever on a tiny random model, built here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from anna.errors import InputError
from anna.teachers import dense
from tests.teachers.conftest import Toy

WORDS = (
    "the river seine flows through paris mountains are high is capital of france berlin germany who wrote this".split()
)


def save_bert(folder: Path, *, safe: bool = True) -> None:
    """Write a random one-layer BERT with a word tokenizer."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )
    fast.save_pretrained(folder)
    BertModel(config(len(vocabulary))).save_pretrained(folder)


def config(vocabulary: int, **more: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
        **more,
    )


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    save_bert(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[transformer, Pooling(16)]).save(str(folder / "model"))
    return folder / "model"


def test_vectors_are_unit_and_do_not_depend_on_company(model_path: Path) -> None:
    model = dense.load_model(model_path, 16)
    texts = ["the river", "berlin is the capital of germany who wrote this", "the river", "mountains"]
    vectors = dense.encode_texts(model, texts, prompt="", tokens_per_batch=64)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    alone = [dense.encode_texts(model, [text], prompt="", tokens_per_batch=1)[0] for text in texts]
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_prompt_comes_before_the_text(model_path: Path) -> None:
    model = dense.load_model(model_path, 16)
    with_prompt = dense.encode_texts(model, ["river"], prompt="capital of ", tokens_per_batch=64)
    by_hand = dense.encode_texts(model, ["capital of river"], prompt="", tokens_per_batch=64)
    np.testing.assert_array_equal(with_prompt, by_hand)


def test_texts_are_cut_to_max_tokens(model_path: Path) -> None:
    model = dense.load_model(model_path, 4)
    long, short = dense.encode_texts(model, ["the river seine flows", "the river"], prompt="", tokens_per_batch=64)
    np.testing.assert_allclose(long, short, atol=1e-6)


def test_run_is_ranked_within_the_task(model_path: Path, toy: Toy) -> None:
    settings: dict[str, Any] = {"query_prompt": "", "doc_prompt": "", "max_tokens": 16, "tokens_per_batch": 64}
    run, vectors = dense.retrieve(toy.corpus, toy.queries, model_path, depth=99, **settings)
    assert run["query_id"].to_pylist() == ["A:q:1"] * 5 + ["A:q:2"] * 5 + ["B:q:1"] * 3
    assert run["rank"].to_pylist() == [1, 2, 3, 4, 5] * 2 + [1, 2, 3]
    scores = np.array(run["score"].to_pylist()[:5])
    assert (np.diff(scores) <= 0).all()
    assert np.abs(scores).max() <= 1 + 1e-6
    assert (run, vectors) == dense.retrieve(toy.corpus, toy.queries, model_path, depth=99, **settings)
    assert sorted(vectors["id"].to_pylist()) == sorted(
        toy.corpus["doc_id"].to_pylist() + toy.queries["query_id"].to_pylist()
    )
    rows = dict(zip(vectors["id"].to_pylist(), np.array(vectors["vector"].to_pylist()), strict=True))
    for row in run.to_pylist():
        assert row["score"] == pytest.approx(rows[row["query_id"]] @ rows[row["doc_id"]], abs=1e-6)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a sentence-transformers model .*retrieve_dense.model"):
        dense.load_model(tmp_path, 16)


def test_more_tokens_than_the_model_takes_are_refused(model_path: Path) -> None:
    with pytest.raises(InputError, match=r"retrieve_dense.max_tokens is 33, but .* takes 32; lower it"):
        dense.load_model(model_path, 33)
