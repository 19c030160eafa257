"""A tiny random cross-encoder: raw logits, whatever the company."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from anna.errors import InputError
from anna.teachers import cross_encoder, reranker
from tests.teachers.test_dense import WORDS, config, save_bert

PAIRS = [("who wrote this", "paris is the capital of france"), ("river", "the river seine"), ("river", "berlin")]


def save(folder: Path, num_labels: int) -> Path:
    save_bert(folder)
    torch.manual_seed(0)
    BertForSequenceClassification(config(len(WORDS) + 4, num_labels=num_labels)).save_pretrained(folder)
    return folder


def test_scores_are_the_raw_logits(tmp_path: Path) -> None:
    path = save(tmp_path / "model", 1)
    settings = {"doc_tokens": 20, "query_tokens": 12}
    scores = reranker.score("cross_encoder", path, PAIRS, tokens_per_batch=64, **settings)
    one_by_one = [reranker.score("cross_encoder", path, [pair], tokens_per_batch=1, **settings)[0] for pair in PAIRS]
    np.testing.assert_allclose(scores, one_by_one, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = BertForSequenceClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        logits = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in PAIRS]
    np.testing.assert_allclose(scores, logits, atol=1e-5)


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives 3 scores per pair, needs 1"):
        cross_encoder.load_cross_encoder(save(tmp_path / "model", 3), 32)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a cross-encoder .*rerank.model"):
        cross_encoder.load_cross_encoder(tmp_path, 32)
