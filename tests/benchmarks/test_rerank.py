"""The reranking benchmark at a tiny size: every side scores the same pairs alike, and counts what it computes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from anna.engine import Local
from anna.teachers.reranker import Reranker, RerankParams
from benchmarks import rerank, side_by_side
from tests.teachers.models import FLOAT32, WORDS, save_cross_encoder

PAIRS = [(query, doc) for query in ("paris", "who wrote this") for doc in ("the river seine", "mountains are high")]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "LIMITS", {"doc_tokens": 20, "query_tokens": 12})
    monkeypatch.setattr(rerank, "BUDGET", 64)


def test_both_cross_encoder_sides_give_the_same_scores(tmp_path: Path) -> None:
    model, ours, peer = save_cross_encoder(tmp_path / "model"), tmp_path / "ours.npy", tmp_path / "peer.npy"
    mine = rerank.our_cross_encoder(model, PAIRS, ours, torch.float32)
    theirs = rerank.their_cross_encoder(model, PAIRS, 2, peer, torch.float32)
    np.testing.assert_allclose(np.load(ours), np.load(peer), atol=1e-5)
    assert mine.useful == theirs.useful == 2 * (1 + 3) + 2 * (3 + 3) + 4 * 3  # words, and [CLS], [SEP], [SEP]
    assert mine.computed == 4 * 16


def test_both_cross_encoder_sides_score_what_the_stage_does(tmp_path: Path) -> None:
    model, ours, peer = save_cross_encoder(tmp_path / "model"), tmp_path / "ours.npy", tmp_path / "peer.npy"
    pairs = [(" ".join(WORDS), "mountains"), ("river", " ".join(WORDS * 2)), *PAIRS]
    mine = rerank.our_cross_encoder(model, pairs, ours, torch.float32)
    theirs = rerank.their_cross_encoder(model, pairs, 2, peer, torch.float32)
    section = {"kind": "cross_encoder", "model": {"kind": "files", "path": model}, "tokens_per_batch": rerank.BUDGET}
    params = RerankParams.model_validate({**section, "depth": 1, "queries_per_task": None, **rerank.LIMITS, **FLOAT32})
    stage = Reranker(params, Counter(), Local(), tmp_path / "store").score(pairs)
    np.testing.assert_array_equal(np.load(ours), stage)
    np.testing.assert_allclose(np.load(peer), stage, atol=1e-5)
    assert mine.useful == theirs.useful == (12 + 1 + 3) + (1 + 20 + 3) + 32


def test_both_likelihood_sides_give_the_same_scores(tmp_path: Path, tiny_checkpoint: Path) -> None:
    ours, peer = tmp_path / "ours.npy", tmp_path / "peer.npy"
    mine, theirs = (
        rerank.our_likelihood(tiny_checkpoint, PAIRS, ours, torch.float32),
        rerank.padded_likelihood(tiny_checkpoint, PAIRS, peer, torch.float32),
    )
    np.testing.assert_allclose(np.load(ours), np.load(peer), atol=1e-5)
    assert mine.computed == mine.useful < theirs.useful <= theirs.computed


def test_a_result_is_pairs_per_second_against_the_best_peer() -> None:
    figures = [side_by_side.Figures(seconds, 0, 0, 0.0) for seconds in (2.0, 4.0, 3.0)]
    row = rerank.faster(dict(zip("abc", figures, strict=True)), 12, 1.2)
    assert row == (6.0, 4.0, 1.5, 1.2)
    assert json.loads(side_by_side.report({"x": row})) == {"x": {"ours": 6.0, "peer": 4.0, "ratio": 1.5, "target": 1.2}}
