"""Scores of pairs through the store, for both kinds of reranker."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anna import store
from anna.engine import Local
from anna.errors import InputError
from anna.modeling.checkpoint import load_causal_lm
from anna.teachers import cross_encoder, query_likelihood, reranker
from anna.teachers.reranker import Kind, Reranker, RerankParams
from tests.teachers.models import FLOAT32, save_cross_encoder

KINDS: list[Kind] = ["cross_encoder", "query_likelihood"]
PAIRS = [(query, doc) for query in ("paris", "who wrote", "river") for doc in ("the river seine", "mountains", "paris")]
SETTINGS: dict[str, Any] = {
    "depth": 1,
    "queries_per_task": None,
    "doc_tokens": 20,
    "query_tokens": 12,
    "tokens_per_batch": 64,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def model(kind: Kind, tmp_path: Path, tiny_checkpoint: Path) -> Path:
    return save_cross_encoder(tmp_path / "cross") if kind == "cross_encoder" else tiny_checkpoint


def score(
    kind: Kind, model: Path, root: Path, pairs: list[tuple[str, str]], **more: Any
) -> tuple[NDArray[np.float32], dict[str, int]]:
    counts: Counter[str] = Counter()
    section = {"kind": kind, "model": {"kind": "files", "path": model}, **SETTINGS, **FLOAT32, **more}
    scores = Reranker(RerankParams.model_validate(section), counts, Local(), root).score(pairs)
    return scores, dict(counts)


def test_scores_are_the_models(kind: Kind, model: Path, tmp_path: Path) -> None:
    if kind == "cross_encoder":
        expected = cross_encoder.score_batch(cross_encoder.load_cross_encoder(model, 32), PAIRS)
    else:
        expected = query_likelihood.score_batch(*load_causal_lm(model), PAIRS, doc_tokens=20, query_tokens=12)
    scores, counts = score(kind, model, tmp_path / "store", PAIRS)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert counts == {"reused": 0, "computed": 9}


def test_in_bfloat16_positions_are_turned_by_exact_angles(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []

    def score_batch(model: Any, tokenizer: Any, pairs: list[tuple[str, str]], **limits: int) -> NDArray[np.float32]:
        used.append(model)
        return original(model, tokenizer, pairs, **limits)

    original = query_likelihood.score_batch
    monkeypatch.setattr(query_likelihood, "score_batch", score_batch)
    narrow, _ = score("query_likelihood", tiny_checkpoint, tmp_path / "store", PAIRS, dtype="bfloat16")
    assert {weight.dtype for weight in used[0].parameters()} == {torch.bfloat16}
    exact, _ = load_causal_lm(tiny_checkpoint)
    torch.testing.assert_close(used[0].model.rotary_emb.inv_freq, exact.model.rotary_emb.inv_freq, rtol=0, atol=0)
    whole, _ = score("query_likelihood", tiny_checkpoint, tmp_path / "store", PAIRS)
    np.testing.assert_allclose(narrow, whole, rtol=0.02)


def test_equal_pairs_are_computed_once_and_known_ones_never(kind: Kind, model: Path, tmp_path: Path) -> None:
    first, counts = score(kind, model, tmp_path / "store", [*PAIRS[:5], PAIRS[0]])
    assert counts == {"reused": 0, "computed": 5}
    assert first[5] == first[0]
    again, counts = score(kind, model, tmp_path / "store", PAIRS[::-1])
    assert counts == {"reused": 5, "computed": 4}
    np.testing.assert_array_equal(again[::-1][:5], first[:5])
    last, counts = score(kind, model, tmp_path / "store", PAIRS, tokens_per_batch=32)
    assert counts == {"reused": 9, "computed": 0}
    np.testing.assert_array_equal(last, again[::-1])


def test_a_pair_is_not_its_reverse(kind: Kind, model: Path, tmp_path: Path) -> None:
    score(kind, model, tmp_path / "store", [("paris", "river")])
    assert score(kind, model, tmp_path / "store", [("river", "paris")])[1]["computed"] == 1


@pytest.mark.parametrize("change", [{"doc_tokens": 36}, {"query_tokens": 28, "doc_tokens": 4}, {"version": 0}])
def test_what_can_change_a_score_is_computed_anew(
    kind: Kind, model: Path, tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = dict(change)
    if kind == "cross_encoder" and limits.get("doc_tokens") == 36:
        limits = {"doc_tokens": 4}
    score(kind, model, tmp_path / "store", PAIRS[:2])
    if "version" in limits:
        monkeypatch.setitem(reranker.VERSIONS, kind, limits.pop("version"))
    assert score(kind, model, tmp_path / "store", PAIRS[:2], **limits)[1] == {"reused": 0, "computed": 2}


def test_a_killed_run_goes_on_to_the_same_bits(
    kind: Kind, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SECONDS_BETWEEN_SHARDS", 0.0)
    whole, _ = score(kind, model, tmp_path / "whole", PAIRS, tokens_per_batch=32)
    original, calls = store.Store._add, []

    def dying(self: store.Store, *rows: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        original(self, *rows)

    monkeypatch.setattr(store.Store, "_add", dying)
    with pytest.raises(KeyboardInterrupt):
        score(kind, model, tmp_path / "killed", PAIRS, tokens_per_batch=32)
    monkeypatch.setattr(store.Store, "_add", original)
    scores, counts = score(kind, model, tmp_path / "killed", PAIRS, tokens_per_batch=32)
    assert counts["reused"] > 0
    assert counts["computed"] > 0
    np.testing.assert_array_equal(scores, whole)


def test_texts_beyond_the_models_positions_are_refused(kind: Kind, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rerank\.doc_tokens and .*query_tokens (are|make) "):
        score(kind, model, tmp_path / "store", PAIRS, doc_tokens=16 * 10**5 - SETTINGS["query_tokens"])


def test_nothing_to_score_loads_no_model(
    kind: Kind, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(reranker, "_LOADERS")
    scores, counts = score(kind, model, tmp_path / "store", [])
    assert (scores.tolist(), counts) == ([], {})
