"""Query likelihood against a plain loop: one pair at a time, no padding, no sharing, all logits."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anna.errors import InputError
from anna.modeling.checkpoint import load_causal_lm
from anna.teachers import query_likelihood
from anna.teachers.query_likelihood import HEAD, TAIL
from tests.modeling.test_families import SIZES, save

PASSAGES = [
    "Paris is the capital of France and people live near the sea.",
    "rivers",
    "a book about mountains, science and music " * 3,
]
QUERIES = ["what is the capital of France", "who", "one two three four five six seven", "Berlin, Madrid?"]
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]
SETTINGS = {"doc_tokens": 24, "query_tokens": 6}

Model = tuple[PreTrainedModel, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    return load_causal_lm(tiny_checkpoint)


def reference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, query: str, passage: str) -> float:
    """Return the score of one pair by the definition."""

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    plain = copy.deepcopy(model)
    plain.set_attn_implementation("sdpa")
    prefix = tokens("Passage:") + tokens(" " + passage)[:24] + tokens(TAIL)
    asked = tokens(" " + query)[:6]
    with torch.inference_mode():
        logs = plain(input_ids=torch.tensor([prefix + asked])).logits[0].log_softmax(dim=-1)
    return float(np.mean([logs[len(prefix) - 1 + place, token].item() for place, token in enumerate(asked)]))


@pytest.mark.parametrize("pairs_at_once", [1, 5, 12])
def test_equal_to_the_definition_in_any_batch(model: Model, pairs_at_once: int) -> None:
    batches = [PAIRS[start : start + pairs_at_once] for start in range(0, len(PAIRS), pairs_at_once)]
    found = np.concatenate([query_likelihood.score_batch(*model, batch, **SETTINGS) for batch in batches])
    np.testing.assert_allclose(found, [reference(*model, query, passage) for query, passage in PAIRS], atol=1e-5)


@pytest.mark.parametrize(
    "family",
    [
        *("gpt_neox", "starcoder2", "olmo", "phi", "glm", "smollm3", "exaone4", "ministral", "apertus", "mixtral"),
        "qwen3_moe",
    ],
)
def test_equal_to_the_definition_for_other_families(family: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2} if family == "qwen3_moe" else {}
    model = load_causal_lm(save(tmp_path / "model", family, tiny_checkpoint, **SIZES, **experts))
    expected = [reference(*model, query, passage) for query, passage in PAIRS]
    np.testing.assert_allclose(query_likelihood.score_batch(*model, PAIRS, **SETTINGS), expected, atol=1e-5)


def test_order_and_company_do_not_matter(model: Model) -> None:
    scores = dict(zip(PAIRS, query_likelihood.score_batch(*model, PAIRS, **SETTINGS), strict=True))
    some = [PAIRS[7], PAIRS[2], PAIRS[7]]
    np.testing.assert_allclose(
        query_likelihood.score_batch(*model, some, **SETTINGS), [scores[pair] for pair in some], atol=1e-5
    )


def test_logits_in_small_parts_are_the_same(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = query_likelihood.score_batch(*model, PAIRS, **SETTINGS)
    monkeypatch.setattr(query_likelihood, "LOGITS_AT_ONCE", 3)
    np.testing.assert_allclose(query_likelihood.score_batch(*model, PAIRS, **SETTINGS), whole, atol=1e-5)


def test_every_query_token_is_read_after_the_one_before_it() -> None:
    parts = [query_likelihood.Shared([5, 6], [[7, 8], [9]], [0, 1]), query_likelihood.Shared([1], [[2]], [2])]
    packing, reads = query_likelihood.pack_batch(parts)
    row = packing.ids[0].tolist()
    assert sorted(row) == [1, 2, 5, 6, 7, 8, 9]
    assert [row[place] for place in reads.before.tolist()] == [6, 7, 6, 1]
    assert reads.targets.tolist() == [7, 8, 9, 2]
    assert reads.pairs.tolist() == [0, 0, 1, 2]


def test_text_form() -> None:
    assert HEAD + "{p}" + TAIL + " {q}" == "Passage: {p}\nQuestion about the passage: {q}"


def test_scaled_logits_are_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model[0].config, "final_logit_softcapping", 30.0, raising=False)
    with pytest.raises(InputError, match=r"final_logit_softcapping 30.0, .*rerank.model"):
        query_likelihood.score_batch(*model, PAIRS, **SETTINGS)
