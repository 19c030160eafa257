"""The last layer of a cross-encoder without what is not read: the same scores from fewer products."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from anna.teachers.first_token import read_first
from tests.teachers.models import WORDS, save_cross_encoder

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40, "num_labels": 1}
FAMILIES = {
    "bert": (BertForSequenceClassification, BertConfig),
    "roberta": (RobertaForSequenceClassification, RobertaConfig),
    "xlm-roberta": (XLMRobertaForSequenceClassification, XLMRobertaConfig),
}
PAIRS = [("who wrote this", "paris is the capital"), ("river", " ".join(WORDS[:15])), ("river", "berlin")]


def cross_encoder_of(model: PreTrainedModel, folder: Path, like: Path) -> CrossEncoder:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)
    return CrossEncoder(str(folder), device="cpu", max_length=32, local_files_only=True)


def logits(model: CrossEncoder) -> Tensor:
    return torch.tensor(model.predict(PAIRS, activation_fn=torch.nn.Identity()))


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_whole_layer(family: str, tmp_path: Path) -> None:
    like = save_cross_encoder(tmp_path / "like")
    architecture, config = FAMILIES[family]
    torch.manual_seed(0)
    made: Any = architecture(config(**SIZES, vocab_size=64, max_position_embeddings=40, initializer_range=0.5))
    model = cross_encoder_of(made, tmp_path / "model", like)
    whole, lengths = logits(model), []
    last = model[0].auto_model.base_model.encoder.layer[-1]
    last.intermediate.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    assert read_first(model)
    torch.testing.assert_close(logits(model), whole, atol=1e-6, rtol=1e-5)
    assert whole.std() > 0.01
    assert lengths == [1]


def test_other_architectures_are_left_as_they_are(tmp_path: Path) -> None:
    like = save_cross_encoder(tmp_path / "like")
    config = DistilBertConfig(dim=24, hidden_dim=40, n_layers=2, n_heads=4, vocab_size=64, num_labels=1)
    model = cross_encoder_of(DistilBertForSequenceClassification(config), tmp_path / "model", like)
    whole = logits(model)
    assert not read_first(model)
    assert torch.equal(logits(model), whole)
